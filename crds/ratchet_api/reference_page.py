"""The API reference as a page: one section an object, one row a field, made from the types.

`make generate` writes it to docs/api.md. A section has the object's rules in the words with which the API server
refuses what breaks them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from ratchet_api import job as api
from ratchet_api.crd import schema

Node = dict[str, Any]


def reference() -> str:
    """The page as Markdown."""
    root = schema(api.RLTrainingJob)
    lines = [
        f"# {api.KIND} ({api.API_VERSION})",
        "",
        "Made from the types by `ratchet crd --format markdown`; do not edit. "
        "`kubectl explain rlj.spec.model` says the same.",
        "",
        root.get("description") or "",
    ]
    for part in ("spec", "status"):
        lines += _section(part, root["properties"][part], 2)
    return "\n".join(lines) + "\n"


def _section(path: str, node: Node, level: int) -> Iterator[str]:
    """An object with its fields, then the objects among these."""
    body = _body(node)
    yield from ("", f"{'#' * level} {path}", "", _one_line(node.get("description") or ""))
    rules = [rule["message"] for part in {id(n): n for n in (node, body)}.values() for rule in _rules(part)]
    if rules:
        yield from ("", "Refused with one of these:", "", *(f"- {rule}" for rule in rules))
    yield from ("", "| field | type | default | meaning |", "|---|---|---|---|")
    inside = f"{path}[]" if node.get("type") == "array" else path
    fields = body.get("properties", {})
    for name, field in fields.items():
        yield _row(inside, name, field, name in body.get("required", ()))
    for name, field in fields.items():
        if _body(field).get("properties"):
            yield from _section(f"{inside}.{name}", field, 3)


def _row(path: str, name: str, node: Node, required: bool) -> str:
    default = "required" if required else (f"`{json.dumps(node['default'])}`" if _shows_default(node) else "")
    whole = bool(_body(node).get("properties"))
    field = f"[`{name}`](#{_anchor(f'{path}.{name}')})" if whole else f"`{name}`"
    meaning = _one_line(node.get("description") or "")
    if not whole:
        meaning += "".join(f" *Rule: {rule['message']}.*" for rule in _rules(node))
    return f"| {field} | {_type_name(node)} | {default} | {_cell(meaning)} |"


def _body(node: Node) -> Node:
    """The object that a field is, or is a list of."""
    items: Node = node["items"] if node.get("type") == "array" else node
    return items


def _rules(node: Node) -> list[dict[str, str]]:
    found: list[dict[str, str]] = node.get("x-kubernetes-validations", [])
    return found


def _anchor(path: str) -> str:
    """The name of a section's heading in links, on the site as on code hosts."""
    return re.sub(r"[^\w-]", "", path).lower()


def _one_line(text: str) -> str:
    return text.replace("\n", " ")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _shows_default(node: Node) -> bool:
    return "default" in node and not node.get("properties")


def _type_name(node: Node) -> str:
    if "enum" in node:
        return " \\| ".join(f"`{v}`" for v in node["enum"])
    kind = node.get("type", "any")
    if kind == "array":
        return f"list of {_type_name(node['items'])}"
    bounds = [f"{sign} {node[key]}" for key, sign in (("minimum", ">="), ("maximum", "<=")) if key in node]
    return f"{kind} {', '.join(bounds)}" if bounds and node.get("maximum", 0) < 2**31 - 1 else str(kind)
