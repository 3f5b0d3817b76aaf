"""`ratchet report --bundle`: what developers need, without secrets and without what people and models wrote."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.cli.report_runs import write_run

from ratchet_cli.main import main
from ratchet_cli.report.redaction import LEFT_OUT, Redaction
from ratchet_trainer.step.learning_signs import quote

SECRETS = (
    "hf_abcdefghijklmn",
    "hunter2hunter2",
    "AKIAABCDEFGHIJKLMNOP",
    "eyJhbGciOiJI.eyJzdWIiOiIx.c2ln",
    "s3cr3t-value",
)


def redacted(value: object, *, texts: bool = False) -> str:
    return json.dumps(Redaction(texts=texts).value(value))


@pytest.mark.parametrize(
    "value",
    [
        {"env": [{"name": "HF_TOKEN", "value": "s3cr3t-value"}]},
        {"env": [{"name": "GOOGLE_AUTH_TOKEN_FOR_TESTING", "value": "s3cr3t-value"}]},
        {"env": [{"name": "HARMLESS", "value": "hf_abcdefghijklmn"}]},
        {"env": [{"name": "DATABASE", "value": "postgres://me:hunter2hunter2@host/db"}]},
        {"kind": "Secret", "data": {"key": "s3cr3t-value"}},
        {"annotations": {"example.com/api-key": "s3cr3t-value"}},
        {"args": ["--api-key=s3cr3t-value"]},
        {"args": ["--password s3cr3t-value"]},
        {"nested": [{"deep": {"clientSecret": "s3cr3t-value"}}]},
        {"log": "Authorization: Bearer eyJhbGciOiJI.eyJzdWIiOiIx.c2ln"},
        {"log": "using AKIAABCDEFGHIJKLMNOP"},
        {"url": "https://store/x?X-Goog-Signature=s3cr3t-value&y=1"},
        {"metadata": {"managedFields": [{"f:token": "s3cr3t-value"}]}},
        {"text": "-----BEGIN RSA PRIVATE KEY-----\ns3cr3t-value\n-----END RSA PRIVATE KEY-----"},
    ],
)  # fmt: skip
def test_no_secret_is_left(value):
    found = redacted(value)
    assert not [secret for secret in SECRETS if secret in found]
    assert redacted(value, texts=True) == found, "asking for samples does not let secrets out"


@pytest.mark.parametrize(
    "value",
    [
        {"maxPromptTokens": 33, "generatedTokens": 5, "tokensPerSecond": "2198.3"},
        {"key": "cloud.google.com/gke-spot", "operator": "Exists"},
        {"env": [{"name": "MAX_TOKENS", "value": "64"}, {"name": "RATCHET_JOB_UID", "value": "0a1b2c3d4e5f6a7b8c9d"}]},
        {"image": "ghcr.io/x/ratchet-trainer:0.1.0@sha256:" + "0" * 64},
        {"weightsSha256": "a" * 64, "secretKeyRef": {"name": "endpoint", "key": "token"}},
        {"message": "node pool-a-1 of pod sums-a1-s-0-0-w95j8 is going away"},
        {"directory": "gs://bucket/runs/sums"},
    ],
)
def test_what_developers_need_stays(value):
    assert json.loads(redacted(value)) == value


class Rollout:
    finish = "end"
    response = ()

    class prompt:
        question, answer = "What is a 'secret' prompt?", "its answer"

    class outcome:
        accuracy, extracted = 0.0, 'what the "model" said'


class Samples:
    class _Group:
        rollouts = (Rollout,)

    groups = (_Group,)


def test_what_the_condition_learning_quotes_is_left_out():
    words = f"nothing was learned; {quote(Samples, str)}"  # type: ignore[arg-type]
    assert "secret" in words
    found = redacted({"message": words})
    for text in ("secret", "its answer", "model"):
        assert text not in found
    assert "nothing was learned" in found
    assert "(ended by its end token)" in found
    assert json.loads(redacted({"message": words}, texts=True))["message"] == words


def bundle(folder: Path, *arguments: str) -> tuple[dict[str, str], str]:
    out = folder.parent / "b.zip"
    asked = ["report", str(folder), "-o", str(folder.parent / "p.html"), "--bundle", str(out), "--force", *arguments]
    done = CliRunner().invoke(main, asked)
    assert done.exit_code == 0, done.output
    with zipfile.ZipFile(out) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}, done.stderr


def test_prompts_and_responses_are_in_it_only_when_asked_for(tmp_path):
    folder = write_run(tmp_path / "run", response="what the model said")
    files, said = bundle(folder)
    assert not [name for name, text in files.items() if "what the model said" in text or "What is 2 + 3?" in text]
    assert "left out of this bundle" in files["report.html"]
    assert "samples and logs of trainers" in said
    assert "samples and logs of trainers" in files["README.txt"]
    files, _ = bundle(folder, "--with-samples")
    assert "what the model said" in files["samples/00000120.json"]
    assert "what the model said" in files["report.html"]


def test_a_bundle_of_a_folder_has_its_books_and_says_that_no_cluster_was_asked(tmp_path):
    files, _ = bundle(write_run(tmp_path / "run"))
    assert {"versions.json", "manifest.yaml", "journal.json", "metrics.jsonl", "report.html"} <= files.keys()
    assert [name for name in files if name.startswith("ledger/")] == [
        "ledger/a1-aaaaaaaa.jsonl", "ledger/a2-bbbbbbbb.jsonl", "ledger/a3-cccccccc.jsonl",
    ]  # fmt: skip
    assert "no cluster was asked" in files["README.txt"]
    assert json.loads(files["doctor.json"])["checks"]


def test_secrets_in_a_manifest_are_counted_and_left_out(tmp_path):
    folder = write_run(tmp_path / "run")
    job = json.loads((folder / "local/job.json").read_text())
    job["spec"]["podTemplate"] = {"env": [{"name": "HF_TOKEN", "value": "s3cr3t-value"}]}
    (folder / "local/job.json").write_text(json.dumps(job))
    files, said = bundle(folder)
    assert not [name for name, text in files.items() if "s3cr3t-value" in text]
    assert LEFT_OUT in files["manifest.yaml"]
    assert "values that look secret" in said
