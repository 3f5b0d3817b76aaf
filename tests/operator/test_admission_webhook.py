"""The admission webhook: the API server asks the operator's process, with the certificate that the chart makes."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml
from running_operator import JOB, until

from ratchet_api.validate import problems
from ratchet_cluster.api import ApiError
from ratchet_cluster.ports import free_ports
from ratchet_operator import admission

ROOT = Path(__file__).parents[2]
CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
MERGE = "application/merge-patch+json"


def manifest(name: str, **spec) -> dict:
    found = yaml.safe_load(JOB)
    found["metadata"] = {"name": name}
    found["spec"] |= {"suspend": True, **spec}
    return found


def wrong(name: str = "wrong") -> dict:
    """What the CRD takes and the operator does not: a batch that its two processes cannot share."""
    found = manifest(name)
    found["spec"]["stages"][0]["sft"]["batchSize"] = 3
    return found


def chart(helm: Path, namespace: str) -> list[dict]:
    """What the chart makes for a release in this namespace that watches it alone."""
    settings = (
        "webhook.enabled=true", "webhook.certificate.dnsNames={localhost}", f"watchNamespaces={{{namespace}}}",
        f"fullnameOverride={namespace}",
    )  # fmt: skip
    flags = [part for setting in settings for part in ("--set", setting)]
    done = subprocess.run(
        [helm, "template", "ratchet", ROOT / "helm/ratchet", "--namespace", namespace, *flags,
         "--show-only", "templates/webhook.yaml"], capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [document for document in yaml.safe_load_all(done.stdout) if document]


@pytest.fixture
async def asked(world, api_server, tmp_path):
    """The operator serves the webhook, and the API server asks it. Services lead nowhere here, so it asks loopback."""
    documents = {it["kind"]: it for it in await asyncio.to_thread(chart, api_server.bin / "helm", world.namespace)}
    folder = tmp_path / "webhook"
    folder.mkdir()
    for name, text in documents["Secret"]["data"].items():
        (folder / name).write_bytes(base64.b64decode(text))
    (port,) = free_ports(1)
    operator = await world.operator(RATCHET_WEBHOOK_PORT=str(port), RATCHET_WEBHOOK_CERTIFICATES=str(folder))
    await operator.leads()
    configuration = documents["ValidatingWebhookConfiguration"]
    (webhook,) = configuration["webhooks"]
    client = webhook["clientConfig"]
    assert client["caBundle"] == documents["Secret"]["data"]["ca.crt"]
    path = client.pop("service")["path"]
    client["url"] = f"https://localhost:{port}{path}"
    await world.api.create(CONFIGURATIONS, configuration)
    # The API server takes a new configuration up after a moment.
    await until("the webhook is asked", lambda: refused(world, wrong()))
    yield operator
    await world.api.delete(f"{CONFIGURATIONS}/{configuration['metadata']['name']}")


async def refused(world, body: dict) -> str:
    """What the API server says against a creation; empty where it takes it (nothing is kept)."""
    try:
        await world.api.create(world.path("rltrainingjobs") + "?dryRun=All", body)
    except ApiError as error:
        return str(error)
    return ""


async def test_a_wrong_job_is_refused_with_the_words_of_validate_and_a_right_one_taken(world, asked):
    said = await refused(world, wrong())
    assert "validate.ratchet.dev" in said
    (problem,) = problems({**wrong(), "metadata": {"name": "wrong"}})
    assert str(problem) in said
    assert await refused(world, manifest("right")) == ""


async def test_a_job_that_was_taken_before_can_be_suspended_and_deleted_but_not_made_worse(world, asked):
    configuration = f"{CONFIGURATIONS}/{world.namespace}-webhook"
    kept = await world.api.get(configuration)
    await world.api.patch(configuration, {"webhooks": []}, MERGE)
    await until("nobody is asked", lambda: taken(world))
    await world.api.create(world.path("rltrainingjobs"), wrong("old"))
    await world.api.patch(configuration, {"webhooks": kept["webhooks"]}, MERGE)
    await until("the webhook is asked again", lambda: refused(world, wrong()))
    job = world.path("rltrainingjobs", "old")
    await world.api.patch(job, {"metadata": {"labels": {"seen": "yes"}}}, MERGE)
    await world.api.patch(job, {"spec": {"suspend": True}}, MERGE)
    worse = {"spec": {"evaluations": [{"name": "e", "dataset": "nowhere", "everySteps": 1, "items": 1}]}}
    with pytest.raises(ApiError, match="nowhere"):
        await world.api.patch(job, worse, MERGE)
    await world.api.delete(job)


async def taken(world) -> bool:
    return await refused(world, wrong()) == ""


async def test_while_nobody_answers_jobs_are_taken_unseen(world, asked):
    await asked.stop()
    assert await refused(world, wrong()) == ""


async def test_without_a_certificate_jobs_are_looked_after_and_the_log_says_which_files_are_missing(world, tmp_path):
    (port,) = free_ports(1)
    folder = str(tmp_path / "nothing")
    operator = await world.operator(RATCHET_WEBHOOK_PORT=str(port), RATCHET_WEBHOOK_CERTIFICATES=folder)
    await operator.leads()
    assert f"RATCHET_WEBHOOK_CERTIFICATES={folder}: no usable tls.crt and tls.key" in operator.log
    assert "Traceback" not in operator.log
    await world.apply()
    await world.completed()


async def test_a_renewed_certificate_is_taken_up(api_server, tmp_path, monkeypatch):
    monkeypatch.setattr(admission, "RENEWED_SECONDS", 0.05)
    helm, (port,) = api_server.bin / "helm", free_ports(1)
    made = [{it["kind"]: it for it in chart(helm, "x")}["Secret"]["data"] for _ in range(2)]

    def write(data: dict) -> None:
        for name in ("tls.crt", "tls.key", "ca.crt"):
            (tmp_path / name).write_bytes(base64.b64decode(data[name]))

    def trusted(data: dict) -> bool:
        import ssl

        authority = base64.b64decode(data["ca.crt"]).decode()
        try:
            request = urllib.request.Request(f"https://localhost:{port}{admission.PATH}", data=b"{}")
            urllib.request.urlopen(request, context=ssl.create_default_context(cadata=authority), timeout=5)
        except urllib.error.HTTPError as error:
            return error.code == 400
        except urllib.error.URLError:
            return False
        return False

    write(made[0])
    runner = await admission.serve("127.0.0.1", port, tmp_path)
    assert await asyncio.to_thread(trusted, made[0])
    assert not await asyncio.to_thread(trusted, made[1])
    (tmp_path / "tls.key").write_text("half written")
    await asyncio.sleep(0.2)
    assert await asyncio.to_thread(trusted, made[0]), "what cannot be used changes nothing"
    write(made[1])
    await until("the new certificate is in use", lambda: asyncio.to_thread(trusted, made[1]))
    await runner.cleanup()


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"request": null}', b'{"request": {"object": {}}}', b"\xff"])
def test_what_is_no_review_is_refused_in_words(body):
    with pytest.raises(admission.NotAReview, match="no AdmissionReview"):
        admission.review(body)


def answer(operation: str, found: object, before: object = None) -> dict:
    request = {"uid": "u", "operation": operation, "object": found, "oldObject": before}
    return admission.review(json.dumps({"request": request}).encode())["response"]


def test_an_answer_names_every_problem_up_to_a_limit():
    many = manifest("many")
    many |= {f"unknown{i}": i for i in range(admission.LISTED + 5)}
    said = answer("CREATE", many)
    count = len(problems(many))
    assert count > admission.LISTED
    assert said["uid"] == "u"
    assert not said["allowed"]
    assert said["status"]["message"].endswith(f"and {count - admission.LISTED} more: ratchet validate lists them")


def test_odd_objects_are_answered_and_a_deletion_passes():
    assert answer("CREATE", [])["allowed"] is False
    assert answer("CREATE", {"spec": 3})["allowed"] is False
    assert answer("UPDATE", {"spec": 3}, {"spec": 3})["allowed"] is True
    assert answer("DELETE", None, wrong())["allowed"] is True
