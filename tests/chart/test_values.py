"""Values: every one is documented, and a wrong one is refused by its name."""

from __future__ import annotations

import json
from collections.abc import Iterator

import chart_documents
import pytest
import yaml
from rendering import CHART, template

VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
ANYTHING = {"global", "podSecurityContext", "securityContext"}
"""Objects whose keys are Kubernetes's own or nobody's."""


def nodes(schema: dict, path: tuple[str, ...] = ()) -> Iterator[tuple[str, dict]]:
    yield ".".join(path), schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, (*path, name))


def refusal(given: dict) -> str:
    """What helm says of these values; fails when it takes them."""
    done = template("--values", "-", stdin=yaml.safe_dump(given))
    assert done.returncode != 0, f"{given} was taken"
    assert "panic" not in done.stderr
    return done.stderr


def nested(path: str, value: object) -> dict:
    for part in reversed(path.split(".")):
        value = {part: value}
    return value


def merge(into: dict, more: dict) -> None:
    for key, value in more.items():
        if isinstance(value, dict):
            merge(into.setdefault(key, {}), value)
        else:
            into[key] = value


def test_readme_and_schema_follow_from_the_comments_in_values():
    for path, text in chart_documents.files().items():
        assert path.read_text() == text, f"{path.name} is stale: run `make generate`"


def test_every_section_refuses_unknown_keys():
    open_ = [
        path
        for path, node in nodes(SCHEMA)
        if node.get("type") == "object" and node.get("additionalProperties", True) is True
    ]
    assert set(open_) - {"affinity.nodeAffinity", "affinity.podAffinity", "affinity.podAntiAffinity"} == ANYTHING


def test_every_value_of_a_wrong_type_is_refused_by_name():
    """3.5 is no value of anything; helm names all that is wrong at once."""
    leaves = [path for path, node in nodes(SCHEMA) if path not in ANYTHING and not node.get("properties")]
    given: dict = {}
    for path in leaves:
        merge(given, nested(path, 3.5))
    said = refusal(given)
    assert len(leaves) > 90
    assert [path for path in leaves if f"at '/{path.replace('.', '/')}'" not in said] == []


def test_every_unknown_key_is_refused_by_name():
    sections = [path for path, node in nodes(SCHEMA) if node.get("properties")]
    given: dict = {}
    for path in sections:
        merge(given, nested(f"{path}.typo".strip("."), 1))
    said = refusal(given)
    where = [f"at '/{path.replace('.', '/')}': additional properties 'typo'" for path in sections if path]
    assert "at '': additional properties 'typo'" in said
    assert [words for words in where if words not in said] == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("replicaCount", "two"),
        ("replicaCount", -1),
        ("metrics.port", 80),
        ("metrics.podMonitor.interval", "often"),
        ("metrics.podMonitor.enabled", "yes"),
        ("image.digest", "sha256:abc"),
        ("image.repository", "ratchet@sha256:abc"),
        ("trainer.localDirectory", "ssd0"),
        ("watchNamespaces", ["Team_A"]),
        ("watchNamespaces", ["a", "a"]),
        ("networkPolicy.operator.apiServerCIDRs", ["10.0.0.1"]),
        ("networkPolicy.trainers.ports", [{"port": 70000}]),
        ("podDisruptionBudget.minAvailable", "half"),
        ("tolerations", [{"key": "a", "effect": "NoShedule"}]),
        ("extraEnv", [{"value": "nameless"}]),
        ("priorityClass.value", 2000000000),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(path, value):
    assert f"/{path.replace('.', '/')}" in refusal(nested(path, value))


def test_what_a_parent_chart_puts_into_global_is_let_through():
    assert template("--set", "global.anything.at.all=1").returncode == 0


def test_a_service_monitor_without_its_service_is_refused_by_name():
    said = refusal({"metrics": {"service": {"enabled": False}, "serviceMonitor": {"enabled": True}}})
    assert "metrics.service.enabled=true" in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\n", "line 1: a has no comment"),
        ("# -- One.\na: 1\n# plain\nb: 2\n", "line 4: b has no comment"),
        ("# A section.\na:\n  b: 1\n", "line 3: a.b has no comment"),
    ],
)
def test_a_value_without_a_description_is_named(text, words):
    with pytest.raises(chart_documents.Undocumented, match=words):
        chart_documents.values(text)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"properties": {}}, "schema.json has no a"),
        ({"properties": {"a": {}, "b": {}}}, "does not describe b"),
    ],
)
def test_keys_that_schema_and_values_do_not_share_are_named(schema, words):
    with pytest.raises(chart_documents.Undocumented, match=words):
        chart_documents.described(schema, chart_documents.values("# -- One.\na: 1\n"))


def test_only_the_marked_part_of_a_comment_describes_a_key():
    (value,) = chart_documents.values("# About all of this.\n# -- How many, in\n# dozens.\na: 1\n")
    assert (value.name, value.default, value.description) == ("a", 1, "How many, in dozens.")
