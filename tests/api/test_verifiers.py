"""What a manifest may say of answers and verifiers."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from ratchet_api import verifiers
from ratchet_api.base import ApiModel
from ratchet_api.crd import schema
from ratchet_api.datasets import Jsonl, ReasoningGym


class Set(ApiModel):
    """A data set with the fields of this module."""

    rules: ClassVar = verifiers.RULES
    name: str = "d"
    reasoning_gym: ReasoningGym | None = None
    jsonl: Jsonl | None = None
    answer: verifiers.Answer | None = verifiers.ANSWER
    verifier: verifiers.VerifierName | None = verifiers.VERIFIER
    python: verifiers.PythonVerifier | None = verifiers.PYTHON
    http: verifiers.HttpVerifier | None = verifiers.HTTP
    code: verifiers.CodeVerifier | None = verifiers.CODE


GYM = {"reasoningGym": {"task": "chain_sum"}}


@pytest.mark.parametrize(
    "said",
    [
        {},
        GYM | {"verifier": "reasoningGym"},
        {"answer": {"extract": "boxed"}, "verifier": "math"},
        {"answer": {"extract": "tag", "tag": "answer"}},
        {"answer": {"extract": "after", "after": "####"}, "verifier": "number"},
        {"verifier": "python", "python": {"entrypoint": "my.judge:verify", "configMap": "judge", "pure": False}},
        {
            "verifier": "http",
            "http": {"url": "https://judge.example/score", "secret": {"name": "judge", "key": "token"}},
        },
        {"verifier": "http", "http": {"url": "http://judge.my-namespace.svc:8080"}},
        {"verifier": "http", "http": {"url": "http://[::1]:65535?model=a/b"}},
        {"verifier": "code"},
        {
            "verifier": "code",
            "code": {"timeoutSeconds": 5, "memoryMiB": 512, "tests": "test_list", "sandbox": "Unsandboxed"},
        },
    ],
)
def test_these_are_taken(said: dict[str, Any]):
    assert Set.model_validate(said).manifest() is not None


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"answer": {}}, "extract"),
        ({"answer": {"extract": "tag"}}, "tag is the name"),
        ({"answer": {"extract": "boxed", "tag": "answer"}}, "tag is the name"),
        ({"answer": {"extract": "tag", "tag": "<answer>"}}, "pattern"),
        ({"answer": {"extract": "after"}}, "after is the text"),
        ({"answer": {"extract": "after", "after": ""}}, "at least 1"),
        ({"verifier": "python"}, "say both or neither"),
        ({"python": {"entrypoint": "a:b"}}, "say both or neither"),
        ({"verifier": "python", "python": {"entrypoint": "judge"}}, "pattern"),
        ({"verifier": "python", "python": {"entrypoint": "a:b", "timeoutSeconds": 0.5}}, "int"),
        ({"verifier": "http"}, "say both or neither"),
        ({"verifier": "http", "http": {"url": "ftp://x"}}, "no address"),
        ({"verifier": "http", "http": {"url": "http://me:pw@x/"}}, "no address"),
        ({"verifier": "http", "http": {"url": "http://x:65536/"}}, "no address"),
        ({"verifier": "http", "http": {"url": "http://x:port/"}}, "no address"),
        ({"verifier": "http", "http": {"url": "http://[::1/"}}, "no address"),
        ({"verifier": "http", "http": {"url": "http://a..b/"}}, "no address"),
        ({"verifier": "http", "http": {"url": "http://x/\u00fc"}}, "no address"),
        ({"verifier": "http", "http": {"url": "http://x/\n"}}, "no address"),
        ({"verifier": "http", "http": {"url": "http://?x"}}, "no address"),
        ({"verifier": "exact", "code": {}}, "code belongs to"),
        ({"code": {}}, "code belongs to"),
        ({"verifier": "code", "code": {"sandbox": "none"}}, "Unsandboxed"),
        ({"verifier": "reasoningGym"}, "needs the items of a reasoningGym"),
        ({"verifier": "rubric"}, "exact"),
    ],
)
def test_these_are_refused(said: dict[str, Any], message: str):
    with pytest.raises(ValidationError, match=message):
        Set.model_validate(said)


def test_the_fields_have_a_structural_schema_and_no_defaults_that_would_contradict_the_rules():
    told = schema(Set)
    assert told["properties"]["verifier"]["enum"] == list(verifiers.VerifierName.__args__)
    assert not {
        name for name in ("answer", "verifier", "python", "http", "code") if "default" in told["properties"][name]
    }
    assert told["properties"]["code"]["properties"]["memoryMiB"]["default"] == 256


def test_every_data_set_has_a_variable_of_its_own_for_its_secret():
    assert verifiers.secret_variable("held-out-2") == "RATCHET_VERIFIER_SECRET_HELD_OUT_2"
