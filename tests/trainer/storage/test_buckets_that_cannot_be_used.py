"""Buckets that are not there, not ours, elsewhere, or of a store that cannot keep writers apart: one line at the start
says what and how to mend it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from restarts import made, restored, runtime
from served import Served

from ratchet_api.protocol import Exit
from ratchet_trainer import storage
from ratchet_trainer.errors import TrainerError
from ratchet_trainer.storage import Location


def refused(place: Location, tmp_path: Path, code: Exit, *words: str, **changes: object) -> None:
    """A start leaves with the code; its message is one line with the words."""
    with pytest.raises(TrainerError) as caught:
        restored(runtime(place, 1, logs=tmp_path, **changes))
    said = str(caught.value)
    assert caught.value.exit == code, said
    assert all(word in said for word in words), said
    assert "\n" not in said
    assert len(said) < 700


REFUSALS = {
    # as Google and Amazon word it
    "gs": ("application/json", b'{"error": {"code": 403, "message": "sa does not have storage.objects.list access"}}'),
    "s3": ("application/xml", b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"),
}


def test_a_bucket_that_is_not_there(served: Served, tmp_path: Path, quickly: None) -> None:
    place = Location(served.store.kind, "no-such-bucket", "jobs/sums")
    root = f"{served.store.kind}://no-such-bucket"
    refused(place, tmp_path, Exit.STORAGE_UNAVAILABLE, root, f"is there no bucket {root}", "Create it")


def test_a_bucket_without_rights(served: Served, tmp_path: Path, quickly: None) -> None:
    place = served.bucket() / "jobs/sums"
    served.proxy.answers = lambda request: (403, *REFUSALS[place.scheme])
    refused(place, tmp_path, Exit.STORAGE_UNAVAILABLE, f"of {place.scheme}://{place.bucket}", "service account")


def test_a_listing_that_is_refused_is_no_empty_one(served: Served) -> None:
    """TensorStore alone takes Google's refusal for an empty listing: then the newest steps would be passed over."""
    place = served.bucket() / "jobs/sums"
    storage.write(place / "steps" / "1" / "control.json", b"{}")
    served.proxy.answers = lambda request: (403, *REFUSALS[place.scheme])
    with pytest.raises(storage.BucketError):
        storage.names(place / "steps")


def test_a_bucket_in_another_region(serving, tmp_path: Path, quickly: None) -> None:  # type: ignore[no-untyped-def]
    """As Amazon answers it."""
    served = serving("s3")
    place = served.bucket() / "jobs/sums"
    xml = (
        b"<Error><Code>PermanentRedirect</Code><Message>The bucket you are attempting to access must be addressed "
        b"using the specified endpoint.</Message><Endpoint>b.s3.eu-west-1.amazonaws.com</Endpoint></Error>"
    )
    served.proxy.reset()
    served.proxy.answers = lambda request: (301, "application/xml", xml)
    try:
        refused(place, tmp_path, Exit.STORAGE_UNAVAILABLE, "another region", "AWS_REGION")
    finally:
        served.proxy.reset()


def test_a_store_without_conditional_writes(served: Served, tmp_path: Path) -> None:
    place = served.bucket() / "jobs/sums"
    served.proxy.conditional = False
    refused(place, tmp_path, Exit.CONFIGURATION_INVALID, "no conditional writes", "use Google Cloud Storage")
    assert storage.tree(place) == [], "nothing is left behind"


def test_another_jobs_prefix(served: Served, tmp_path: Path) -> None:
    place = served.bucket() / "jobs/sums"
    one = runtime(place, 1, uid="uid-1", logs=tmp_path)
    restored(one)
    made(one, 1, 1)
    before = storage.tree(place)
    words = "spec.checkpoint.directory", f"{place} holds checkpoints of default/sums (uid uid-1)", "choose another"
    refused(place, tmp_path, Exit.CONFIGURATION_INVALID, *words, uid="uid-2", seed=7)
    assert storage.tree(place) == before


@pytest.mark.parametrize("text", ["gs://bad_/x", "gs://b", "s3://bucket/a//b"])
def test_a_place_that_cannot_be_meant(text: str, tmp_path: Path) -> None:
    said = "no bucket's name" if "//b" not in text[5:] else "is empty"
    with pytest.raises(TrainerError, match=rf"spec.checkpoint.directory: {text}: .*{said}") as caught:
        runtime(text, 1, logs=tmp_path)
    assert caught.value.exit == Exit.CONFIGURATION_INVALID


def test_a_bucket_that_goes_away_in_the_middle_of_a_run(served: Served, tmp_path: Path, quickly: None) -> None:
    place = served.bucket() / "jobs/sums"
    one = runtime(place, 1, logs=tmp_path)
    restored(one)
    made(one, 1, 2)
    served.proxy.down()
    try:
        with pytest.raises(TrainerError, match="saving step 3 to") as caught:
            made(one, 3, 3)
    finally:
        served.proxy.up()
    assert caught.value.exit == Exit.STORAGE_UNAVAILABLE
    heir = runtime(place, 2, last_step=2, logs=tmp_path)
    assert restored(heir).step == 2
    made(heir, 3, 3)
    assert stream(place) == [b'{"step":1}', b'{"step":2}', b'{"step":3}']


def stream(place: Location) -> list[bytes]:
    from ratchet_trainer.checkpoints.checkpoint import stream_of

    return stream_of(place).read().splitlines()


def test_without_the_library() -> None:
    """In a process that has none."""
    program = (
        "import sys; sys.modules['tensorstore'] = None\n"
        "from ratchet_trainer import storage\n"
        "from ratchet_trainer.errors import TrainerError\n"
        "try: storage.read(storage.Location.parse('gs://bucket/x'))\n"
        "except TrainerError as error: print(error.exit.value, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.startswith("64 gs:// needs the package tensorstore"), done
    assert "ratchet-rl[trainer]" in done.stdout


@pytest.mark.parametrize(("scheme", "name"), [("gs", "TENSORSTORE_GCS_HTTP_URL"), ("s3", "AWS_ENDPOINT_URL")])
def test_a_store_that_cannot_be_reached(scheme: str, name: str) -> None:
    text = "ABORTED: All 3 retry attempts failed: CURL error Could not connect to server"
    said = str(storage.BucketError(Location(scheme, "bucket", "x"), "ABORTED", text))
    assert said.startswith(f"{scheme}://bucket/x: ABORTED")
    assert f"can the store be reached from here? Its address is the cloud's own unless {name}" in said
