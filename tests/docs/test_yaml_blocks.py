"""Every YAML and JSON block of README, CONTRIBUTING and docs/ is right: whole manifests, and fragments inside one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fragments import Block, blocks, documents, whole

from ratchet_api.validate import problems

ROOT = Path(__file__).parents[2]
FOUND = list(blocks(ROOT))


@pytest.mark.parametrize("block", [b for b in FOUND if b.language == "yaml"], ids=str)
def test_yaml_of_the_documentation_is_a_valid_manifest_or_a_part_of_one(block: Block) -> None:
    for document in documents(block.text):
        assert [str(problem) for problem in problems(whole(document))] == []


@pytest.mark.parametrize("block", [b for b in FOUND if b.language == "json"], ids=str)
def test_json_of_the_documentation_can_be_read(block: Block) -> None:
    json.loads(block.text)


def test_a_fragment_with_a_wrong_field_is_seen() -> None:
    with pytest.raises(LookupError, match=r"\['rewrads'\] are not all fields of one object"):
        whole({"rewrads": []})
    assert problems(whole({"rewards": [{"nam": "accuracy"}]})) != []
    assert problems(whole({"checkpoint": {"directory": "checkpoints"}})) != []


@pytest.mark.parametrize("block", [b for b in FOUND if b.language == "python"], ids=str)
def test_python_of_the_documentation_compiles(block: Block) -> None:
    """That CONTRIBUTING's does what it says is in tests/trainer/test_contributing.py."""
    rows = block.text.startswith("# a row of")
    compile(f"{{\n{block.text}}}" if rows else block.text, str(block), "exec")
