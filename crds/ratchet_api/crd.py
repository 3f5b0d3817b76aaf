"""From the types to what other programs read: CRD, JSON schema for editors, API reference.

pydantic's JSON schema is translated to the structural schema of apiextensions/v1: references inlined, null removed,
defaults written out so that inner defaults apply, list maps and CEL rules added. Nothing is decided here; it all
follows from the types.
"""

from __future__ import annotations

import copy
from typing import Any

import yaml
from pydantic import BaseModel

from ratchet_api import job as api
from ratchet_api.base import ApiModel

PRINTER_COLUMNS = (
    # name, type, JSON path, priority (0: always, 1: with -o wide), description
    ("Phase", "string", ".status.phase", 0, "Where the job is, in one word."),
    ("Stage", "string", ".status.stage.name", 0, "Stage of the curriculum."),
    ("Step", "string", ".status.progress.text", 0, "Finished step / step at which the stage ends at the latest."),
    ("Reward", "string", ".status.progress.reward", 0, "Mean reward of the last step."),
    (
        "Learning", "string", '.status.conditions[?(@.type=="Learning")].status', 0,
        "Whether the model learns; why not stands in the condition Learning.",
    ),
    ("Accuracy", "string", ".status.progress.accuracy", 1, "Mean accuracy of the last step."),
    ("Attempt", "integer", ".status.attempt.number", 0, "Number of the attempt."),
    ("Preemptions", "integer", ".status.counters.preemptions", 0, "Attempts ended by capacity that was taken away."),
    ("Failures", "integer", ".status.counters.failures", 1, "Failures not forgiven so far."),
    ("Workers", "string", ".status.rollouts.text", 1, "Workers of the fleet that run / that there should be."),
    ("Tok/s", "string", ".status.progress.tokensPerSecond", 1, "Tokens per second."),
    ("Checkpoint", "integer", ".status.checkpoint.step", 1, "Newest committed step."),
    ("Placement", "string", ".status.attempt.placement", 1, "Where it runs."),
    ("Age", "date", ".metadata.creationTimestamp", 0, "Time since creation."),
)  # fmt: skip

DROPPED = {"title", "additionalProperties", "propertyNames", "$defs"}
KEPT = {
    "type", "format", "description", "default", "enum", "required", "properties", "items", "pattern",
    "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "maxProperties",
    "x-kubernetes-validations", "x-kubernetes-list-type", "x-kubernetes-list-map-keys",
    "x-kubernetes-preserve-unknown-fields",
}  # fmt: skip


def schema(model: type[ApiModel]) -> dict[str, Any]:
    """The structural schema of a type, as `openAPIV3Schema` wants it."""
    source = model.model_json_schema(by_alias=True, mode="validation")
    classes = {c.__name__: c for c in _classes(model, {})}
    return _structural(source, source.get("$defs", {}), classes, model)


def crd() -> dict[str, Any]:
    """The CustomResourceDefinition of RLTrainingJob as plain data."""
    root = schema(api.RLTrainingJob)
    root["properties"] = {
        "apiVersion": {"type": "string", "description": "Version of this schema: " + api.API_VERSION + "."},
        "kind": {"type": "string", "description": "Kind of this object: " + api.KIND + "."},
        "metadata": {"type": "object"},
    } | root["properties"]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{api.PLURAL}.{api.GROUP}"},
        "spec": {
            "group": api.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": api.KIND,
                "listKind": api.KIND + "List",
                "plural": api.PLURAL,
                "singular": api.KIND.lower(),
                "shortNames": ["rlj"],
                "categories": ["all", "ratchet"],
            },
            "versions": [
                {
                    "name": api.VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        {"name": n, "type": t, "jsonPath": p, "description": d} | ({"priority": w} if w else {})
                        for n, t, p, w, d in PRINTER_COLUMNS
                    ],
                    "schema": {"openAPIV3Schema": root},
                }
            ],
        },
    }


def crd_yaml() -> str:
    """The CRD as YAML text."""
    return yaml.dump(crd(), Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def json_schema() -> dict[str, Any]:
    """A JSON schema of whole manifests for editors; unknown fields are marked."""
    root = _closed(schema(api.RLTrainingJob))
    root["properties"] = {
        "apiVersion": {"const": api.API_VERSION},
        "kind": {"const": api.KIND},
        "metadata": {"type": "object"},
    } | root["properties"]
    root["required"] = ["apiVersion", "kind", "metadata", "spec"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": api.KIND} | root


def _classes(model: type[BaseModel], seen: dict[type[BaseModel], None]) -> dict[type[BaseModel], None]:
    if model not in seen:
        seen[model] = None
        for field in model.model_fields.values():
            for inner in _models_in(field.annotation):
                _classes(inner, seen)
    return seen


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for argument in getattr(annotation, "__args__", ()) for m in _models_in(argument)]


def _structural(
    node: dict[str, Any],
    defs: dict[str, Any],
    classes: dict[str, type[BaseModel]],
    model: type[BaseModel] | None = None,
) -> dict[str, Any]:
    """One node of pydantic's schema -> one node of a structural schema; `model` is the class it describes, if any."""
    node = copy.copy(node)
    if "anyOf" in node:  # Optional[T]: absence is the only null
        (kept,) = (option for option in node.pop("anyOf") if option.get("type") != "null")
        node = kept | node
    if "$ref" in node:
        name = node.pop("$ref").rsplit("/", 1)[-1]
        model = classes[name]
        node = defs[name] | node
    if node.get("default", ...) is None:
        del node["default"]
    if "const" in node:
        node["enum"] = [node.pop("const")]
    if unknown := node.keys() - KEPT - DROPPED:
        raise ValueError(f"{sorted(unknown)} of {node.get('description')!r} have no place in a structural schema")
    out = {key: value for key, value in node.items() if key in KEPT}
    if isinstance(node.get("additionalProperties"), dict) and "properties" not in node:
        out["additionalProperties"] = _structural(node["additionalProperties"], defs, classes)
    if "properties" in node:
        out["properties"] = {k: _structural(v, defs, classes) for k, v in node["properties"].items()}
    if "items" in node:
        out["items"] = _structural(node["items"], defs, classes)
    if node.get("type") == "integer":
        out["format"] = "int64" if node.get("maximum", 0) > 2**31 - 1 else "int32"
    if model is not None:
        own = [rule.schema() for rule in getattr(model, "rules", ())]
        if own:
            out["x-kubernetes-validations"] = out.get("x-kubernetes-validations", []) + own
        if "default" in out:
            # A default of {} lets the server fill in the inner defaults, whatever they become.
            out["default"] = {}
    return out


def _closed(node: dict[str, Any]) -> dict[str, Any]:
    """The same schema refusing unknown fields, without the extensions that editors do not know."""
    out = {k: v for k, v in node.items() if not k.startswith("x-kubernetes") and k != "format"}
    if "properties" in out:
        out["properties"] = {k: _closed(v) for k, v in out["properties"].items()}
        out["additionalProperties"] = False
    if "items" in out:
        out["items"] = _closed(out["items"])
    return out


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True
