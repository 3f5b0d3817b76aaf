"""How places are written, joined and shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from ratchet_trainer.errors import ConfigurationInvalid
from ratchet_trainer.storage import Location, kvstore_spec


@pytest.mark.parametrize(
    ("text", "shown", "name", "parent"),
    [
        ("gs://bucket/jobs/sums", "gs://bucket/jobs/sums", "sums", "gs://bucket/jobs"),
        ("gs://bucket/jobs/", "gs://bucket/jobs", "jobs", "gs://bucket"),
        ("s3://bucket", "s3://bucket", "", "s3://bucket"),
        ("/checkpoints/sums", "/checkpoints/sums", "sums", "/checkpoints"),
    ],
)
def test_a_place_is_shown_as_it_is_written(text: str, shown: str, name: str, parent: str) -> None:
    place = Location.parse(text)
    assert (str(place), place.name, str(place.parent)) == (shown, name, parent)
    assert Location.parse(shown) == place


def test_places_are_joined_alike_everywhere() -> None:
    for root in ("gs://bucket", "gs://bucket/jobs", "/jobs"):
        assert str(Location.parse(root) / "steps" / "1-a1/x") == f"{root}/steps/1-a1/x"


def test_a_path_is_a_path_and_a_bucket_never() -> None:
    assert Location.parse(Path("/a/b")).local == Path("/a/b")
    with pytest.raises(TypeError, match="gs://bucket/b is no path"):
        _ = Location.parse("gs://bucket/b").local


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ftp://host/x", "ftp:// is not known; use gs://, s3:// or a path"),
        ("gs://", "is no bucket's name"),
        ("gs:///prefix", "is no bucket's name"),
        ("gs://Bucket/x", "'Bucket' is no bucket's name"),
        ("gs://bucket/a//b", "is empty, . or .."),
        ("s3://bucket/../b", "is empty, . or .."),
        ("gs:/bucket/x", "one / too few after gs:; write gs://BUCKET/PREFIX"),
        ("S3:/bucket/x", "one / too few after S3:; write s3://BUCKET/PREFIX"),
        ("file:/checkpoints", "one / too few after file:; write gs://, s3:// or a path"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigurationInvalid, match=f"spec.checkpoint.directory: {text}.*{said}"):
        Location.parse(text, "spec.checkpoint.directory")


ODD = ["", " ", " gs://bucket/x", "gs://bucket/x ", " /a", "gs://bucket/a\tb", "/a\0b", "/a\n"]


@pytest.mark.parametrize("text", ODD)
def test_a_place_has_no_blanks_around_it_and_no_control_characters(text: str) -> None:
    """A folder of such a name would be made, and what was meant for a bucket would stay on the machine."""
    with pytest.raises(ConfigurationInvalid, match=r"--directory: .*without blanks around it") as caught:
        Location.parse(text, "--directory")
    assert "\n" not in str(caught.value)


def test_a_path_of_the_programs_own_may_look_odd() -> None:
    assert str(Location.parse(Path("gs:/x "))) == "gs:/x "
    assert str(Location.parse("/runs/a b/ünï:1/x")) == "/runs/a b/ünï:1/x"


def test_tensorstore_is_told_the_same_place(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kvstore_spec(Location.parse("/a/b")) == {"driver": "file", "path": "/a/b/"}
    assert kvstore_spec(Location.parse("gs://bucket/a/b")) == {"driver": "gcs", "bucket": "bucket", "path": "a/b/"}
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    assert kvstore_spec(Location.parse("s3://bucket")) == {"driver": "s3", "bucket": "bucket", "path": ""}
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert kvstore_spec(Location.parse("s3://bucket/a")) == {
        "driver": "s3", "bucket": "bucket", "path": "a/", "endpoint": "http://127.0.0.1:1", "aws_region": "eu-west-1",
    }  # fmt: skip
