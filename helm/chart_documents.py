"""Makes the chart's README and the descriptions in its schema from the comments in `values.yaml`.

`python helm/chart_documents.py` writes both, `--check` says which of them is stale. Comments are written as helm-docs
has them: lines that begin with `# --` describe the key below them. A section, which only holds other keys, has a
comment without `--`. The types in `values.schema.json` are kept by hand.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parent / "ratchet"
MARK = "# --"
VALUES_TABLE = '{{ template "chart.valuesTable" . }}'
"""Where the table goes in README.md.gotmpl, in helm-docs' words."""


class Undocumented(ValueError):
    """A key of values.yaml without a description, or one that the schema does not have; the message names it."""


@dataclass(frozen=True)
class Value:
    """One documented key."""

    path: tuple[str, ...]
    default: Any
    description: str
    section: bool = False
    """Whether it only holds other keys; those stand in the table, and its own comment has no `--`."""

    @property
    def name(self) -> str:
        return ".".join(self.path)


def values(text: str) -> list[Value]:
    """Every documented key of a values.yaml, in its order. Raises Undocumented for a key that nothing describes."""
    return list(_values(yaml.compose(text), text.splitlines(), ()))


def _values(node: yaml.MappingNode, lines: list[str], above: tuple[str, ...]) -> Iterator[Value]:
    for key, child in node.value:
        path = (*above, key.value)
        marked, description = _comment(lines, key.start_mark.line)
        section = not marked and isinstance(child, yaml.MappingNode) and bool(child.value)
        if not description or not (marked or section):
            raise Undocumented(
                f"values.yaml line {key.start_mark.line + 1}: {'.'.join(path)} has no comment `# -- ...`"
            )
        yield Value(path, yaml.safe_load(yaml.serialize(child)), description, section)
        if section:
            yield from _values(child, lines, path)


def _comment(lines: list[str], line: int) -> tuple[bool, str]:
    """Whether the comment above a line has a `# --`, and what it says (from the last one on)."""
    found: list[str] = []
    while line > 0 and lines[line - 1].lstrip().startswith("#"):
        line -= 1
        text = lines[line].strip()
        if text.startswith(MARK):
            return True, " ".join([text.removeprefix(MARK).strip(), *found])
        found.insert(0, text.removeprefix("#").strip())
    return False, " ".join(found)


def table(rows: list[Value]) -> str:
    """A Markdown table of keys, defaults and descriptions."""
    lines = ["| Key | Default | Description |", "|---|---|---|"]
    for row in (row for row in rows if not row.section):
        default = json.dumps(row.default, ensure_ascii=False)
        lines.append(f"| `{row.name}` | `{default}` | {row.description} |".replace("||", "\\|\\|"))
    return "\n".join(lines)


def readme(template: str, rows: list[Value], chart: dict[str, Any]) -> str:
    """README.md: the template with the table and what Chart.yaml says."""
    filled = {
        VALUES_TABLE: table(rows),
        '{{ template "chart.description" . }}': chart["description"],
        '{{ template "chart.version" . }}': chart["version"],
        '{{ template "chart.kubeVersion" . }}': chart["kubeVersion"],
    }
    for place, text in filled.items():
        template = template.replace(place, text)
    return template


def described(schema: dict[str, Any], rows: list[Value]) -> dict[str, Any]:
    """The schema with each key's description. Raises Undocumented where schema and values have different keys."""
    known = {row.path: row.description for row in rows}
    result = _described(schema, known, ())
    if known:
        raise Undocumented(f"values.schema.json has no {'.'.join(next(iter(known)))}, which values.yaml has")
    return result


def _described(schema: dict[str, Any], known: dict[tuple[str, ...], str], path: tuple[str, ...]) -> dict[str, Any]:
    result = dict(schema)
    if path:
        if path not in known:
            raise Undocumented(f"values.yaml does not describe {'.'.join(path)}, which values.schema.json has")
        result = {"description": known.pop(path), **{k: v for k, v in schema.items() if k != "description"}}
    if any(other[: len(path)] == path for other in known):
        children = schema.get("properties", {})
        result["properties"] = {name: _described(child, known, (*path, name)) for name, child in children.items()}
    return result


def files(chart: Path = CHART) -> dict[Path, str]:
    """What the generated files should hold."""
    rows = values((chart / "values.yaml").read_text(encoding="utf-8"))
    about = yaml.safe_load((chart / "Chart.yaml").read_text(encoding="utf-8"))
    template = (chart / "README.md.gotmpl").read_text(encoding="utf-8")
    schema = json.loads((chart / "values.schema.json").read_text(encoding="utf-8"))
    return {
        chart / "README.md": readme(template, rows, about),
        chart / "values.schema.json": json.dumps(described(schema, rows), indent=2, ensure_ascii=False) + "\n",
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the chart's README and its schema's descriptions.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where a file is stale")
    check = parser.parse_args().check
    try:
        wanted = files()
    except Undocumented as problem:
        print(problem, file=sys.stderr)
        return 65
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        if check:
            print(f"{path.name} is stale: run `make generate`", file=sys.stderr)
        else:
            path.write_text(wanted[path], encoding="utf-8")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
