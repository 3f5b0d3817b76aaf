"""Pages of the site that are made of files outside docs/: the documents of the repository's root and the examples.

Decides their names on the site, and where a link of a page leads there. Pure but for reading files.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

DOCUMENTS = {
    # file of the root -> its page
    "ARCHITECTURE.md": "project/architecture.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
    "LICENSE": "project/license.md",
    "helm/ratchet/README.md": "chart.md",
}
SCHEMA = "crds/rltrainingjob.schema.json"
EXAMPLES = "examples"
VALUES = ("helm", "ratchet", "ci")
"""Value sets of the chart, which its README links to."""
KINDS = {
    # folder of examples -> what they are
    "examples": "Start here",
    "examples/methods": "One method each, two minutes on a laptop",
    "examples/recipes": "Published systems, one manifest each",
    "examples/gke": "TPU slices on GKE",
}

_LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)\s]*)?\))")
_FENCE = re.compile(r"(^```.*?^```[^\n]*$)", re.DOTALL | re.MULTILINE)


def manifests(root: Path) -> list[Path]:
    """The manifests of the examples, in the order of KINDS, then by name; relative to the root."""
    return [file.relative_to(root) for folder in KINDS for file in sorted((root / folder).glob("*.yaml"))]


def place_on_site(path: PurePosixPath) -> str | None:
    """The page or file of the site that stands for a file of the repository, None where there is none."""
    name = str(path)
    if name in DOCUMENTS:
        return DOCUMENTS[name]
    if path.parts[:1] == ("docs",):
        return str(path.relative_to("docs"))
    if path.parts[:1] == (EXAMPLES,) and path.suffix == ".yaml":
        return str(path.with_suffix(".md"))
    if path.parts[:3] == VALUES:
        return f"chart/{path.name}"
    if name == EXAMPLES or name in KINDS:
        return "examples/index.md"
    return "schema/rltrainingjob.schema.json" if name == SCHEMA else None


def links_of_the_site(markdown: str, source: str, root: Path, page: str | None = None) -> str:
    """A page with its links to other files of the repository turned into links of the site.

    `source`: the file of the repository that the page is made of; `page`: its name on the site, which follows from
    that where it is absent. A link to a file without a page is left as it is, so that the strict build names it.
    """
    here = PurePosixPath(page or place_on_site(PurePosixPath(source)) or source).parent

    def turned(found: re.Match[str]) -> str:
        target = found[2]
        if re.match(r"[a-z]+:|/", target):
            return found[0]
        inside = PurePosixPath(os.path.normpath(PurePosixPath(source).parent / target))
        place = place_on_site(inside) if (root / inside).exists() else None
        return found[0] if place is None else f"{found[1]}{os.path.relpath(place, here)}{found[3]}"

    parts = _FENCE.split(markdown)
    return "".join(part if i % 2 else _LINK.sub(turned, part) for i, part in enumerate(parts))


def outside_pages(root: Path) -> dict[str, str]:
    """Name on the site -> Markdown, of every page that is made of files outside docs/."""
    found = {}
    for file, page in DOCUMENTS.items():
        if not (root / file).exists():
            continue
        text = (root / file).read_text(encoding="utf-8")
        found[page] = f"# License\n\n```text\n{text}```\n" if file == "LICENSE" else links_of_the_site(text, file, root)
    for manifest in manifests(root):
        found[str(manifest.with_suffix(".md"))] = _example((root / manifest).read_text(encoding="utf-8"), manifest)
    return found | {"examples/index.md": _index(root)}


def raw_files(root: Path) -> dict[str, Path]:
    """Name on the site -> file, of what is copied as it is."""
    schema = root / SCHEMA
    values = {f"chart/{file.name}": file for file in sorted(root.joinpath(*VALUES).glob("*.yaml"))}
    return values | ({"schema/rltrainingjob.schema.json": schema} if schema.exists() else {})


def _example(text: str, file: Path) -> str:
    return f"# {file.stem}\n\n`{file.as_posix()}`\n\n```yaml\n{text.rstrip()}\n```\n"


def _index(root: Path) -> str:
    lines = ["# Examples", "", "Every one is admitted by the API server in a test.", ""]
    for folder, title in KINDS.items():
        lines += [f"## {title}", "", "| manifest | what it shows |", "|---|---|"]
        for file in sorted((root / folder).glob("*.yaml")):
            link = (file.relative_to(root / EXAMPLES)).with_suffix(".md").as_posix()
            lines.append(f"| [{file.stem}]({link}) | {_first_sentence(file.read_text(encoding='utf-8'))} |")
        lines.append("")
    return "\n".join(lines)


def _first_sentence(text: str) -> str:
    """The first sentence of the comment at the top of a manifest."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# yaml-language-server"):
            lines.append(line.removeprefix("#").strip())
    comment = " ".join(lines)
    return re.split(r"(?<=\.)\s", comment, maxsplit=1)[0].replace("|", "\\|")
