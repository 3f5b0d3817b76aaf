"""CRD, editor schema and reference follow from the types, and the copies in the repository are fresh."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import yaml
from manifests_for_tests import full

from ratchet_api import crd
from ratchet_api.reference_page import reference

ROOT = Path(__file__).parents[2]


def nodes(schema, path="spec"):
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], path + "[]")


def parts():
    root = crd.crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    return [*nodes(root["spec"], "spec"), *nodes(root["status"], "status")]


def test_every_field_is_described():
    assert [path for path, node in parts() if not path.endswith("[]") and len(node.get("description", "")) < 8] == []


def test_everything_that_a_list_iterates_is_bounded():
    unbounded = [p for p, n in parts() if n.get("type") == "array" and "maxItems" not in n]
    unbounded += [p for p, n in parts() if n.get("type") == "string" and not {"maxLength", "enum"} & n.keys()]
    unbounded += [p for p, n in parts() if n.get("type") == "integer" and not {"minimum", "maximum"} <= n.keys()]
    assert unbounded == []


def test_there_are_no_floats():
    assert [path for path, node in parts() if node.get("type") == "number"] == []


def test_the_crd_is_small_enough_for_client_side_apply():
    """kubectl keeps what it applied as JSON in an annotation, and all annotations may have 262144 bytes."""
    assert len(json.dumps(crd.crd(), separators=(",", ":"))) < 200_000


def test_the_copies_in_the_repository_are_fresh():
    text = crd.crd_yaml()
    for copy in ("crds/rltrainingjobs.ratchet.dev.yaml", "helm/ratchet/files/rltrainingjobs.ratchet.dev.yaml"):
        assert (ROOT / copy).read_text() == text, f"{copy} is stale: run `make generate`"
    assert (ROOT / "docs/api.md").read_text() == reference(), "docs/api.md is stale: run `make generate`"
    assert json.loads((ROOT / "crds/rltrainingjob.schema.json").read_text()) == crd.json_schema(), "run `make generate`"


def test_the_editor_schema_takes_good_manifests_and_marks_unknown_fields():
    schema = crd.json_schema()
    jsonschema.validate(full(), schema)
    for example in sorted((ROOT / "examples").rglob("*.yaml")):
        jsonschema.validate(yaml.safe_load(example.read_text()), schema)
        (line,) = re.findall(r"^# yaml-language-server: \$schema=(.*)$", example.read_text(), re.MULTILINE)
        assert (example.parent / line).resolve() == ROOT / "crds/rltrainingjob.schema.json", "editors would not find it"
    manifest = full()
    manifest["spec"]["stages"][0]["advanse"] = {}
    assert not jsonschema.Draft202012Validator(schema).is_valid(manifest)
