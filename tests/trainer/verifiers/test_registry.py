"""Which verifier a data set has, where it runs, and that the same manifest always names the same one."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from cases import case

from ratchet_api.verifiers import Answer, CodeVerifier, HttpVerifier, PythonVerifier, SecretKey
from ratchet_trainer.algorithm.verifiers import registry
from ratchet_trainer.algorithm.verifiers.spec import Extraction, VerifierSpec
from ratchet_trainer.errors import ConfigurationInvalid


def dataset(task: str | None = None, **said: Any) -> Any:
    gym = None if task is None else SimpleNamespace(task=task, config={"max_terms": 3})
    absent = {"answer": None, "verifier": None, "python": None, "http": None, "code": None}
    return SimpleNamespace(**absent | {"name": "d", "reasoning_gym": gym} | said)


@pytest.mark.parametrize(
    ("said", "name", "extraction", "inline", "pure"),
    [
        (dataset(), "exact", "whole", True, True),
        (dataset("chain_sum"), "reasoningGym", "auto", True, True),
        (dataset("countdown"), "reasoningGym", "auto", False, True),
        (dataset("jugs"), "reasoningGym", "auto", False, True),
        (dataset("chain_sum", verifier="exact"), "exact", "whole", True, True),
        (dataset(verifier="number"), "number", "lastNumber", True, True),
        (dataset(verifier="math"), "math", "auto", False, True),
        (dataset(verifier="choice"), "choice", "auto", True, True),
        (dataset(verifier="code"), "code", "auto", False, False),
        (dataset(verifier="code", code=CodeVerifier(tests="t")), "code", "auto", False, False),
        (
            dataset(verifier="python", python=PythonVerifier(entrypoint="hostile:verify")),
            "python",
            "whole",
            False,
            True,
        ),
        (
            dataset(verifier="http", http=HttpVerifier(url="http://x/", secret=SecretKey(name="s", key="k"))),
            "http",
            "whole",
            False,
            False,
        ),
        (dataset(answer=Answer(extract="tag", tag="answer")), "exact", "tag", True, True),
    ],
)
def test_a_data_set_has_this_verifier(said: Any, name: str, extraction: str, inline: bool, pure: bool):
    spec = registry.resolve(said)
    assert (spec.name, spec.extraction.kind, registry.verify_inline(spec), spec.pure) == (
        name,
        extraction,
        inline,
        pure,
    )
    assert VerifierSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert registry.deadline(spec) > 1
    assert registry.memory_mib(spec) >= 64


def test_a_tag_and_a_marker_are_carried_along():
    assert registry.resolve(dataset(answer=Answer(extract="tag", tag="a"))).extraction == Extraction("tag", "a")
    assert registry.resolve(dataset(answer=Answer(extract="after", after="#"))).extraction == Extraction("after", "#")


def test_a_task_that_cannot_be_verified_is_refused_unless_another_verifier_is_named():
    with pytest.raises(ConfigurationInvalid, match="graph_color"):
        registry.resolve(dataset("graph_color"))
    assert registry.resolve(dataset("graph_color", verifier="exact")).name == "exact"


def test_the_version_of_a_users_verifier_changes_with_its_source(tmp_path: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RATCHET_VERIFIERS_FOLDER", str(tmp_path))
    (tmp_path / "judge").mkdir()
    file = tmp_path / "judge" / "judge.py"
    said = dataset(verifier="python", python=PythonVerifier(entrypoint="judge:verify", configMap="judge"))
    file.write_text("def verify(case): return 0")
    before = registry.resolve(said).version
    file.write_text("def verify(case): return 1")
    assert registry.resolve(said).version != before


def test_an_absent_answer_still_scores_a_chat_model_on_sums():
    verify = registry.build(registry.resolve(dataset("chain_sum")))
    assert verify(case("2 + 3 = 5", "5")).accuracy == 1.0
