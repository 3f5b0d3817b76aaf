"""The page docs/troubleshooting.md: what every condition reason, verdict and error text means, and what to do.

Made from the operator's tables and the error texts of the code, with what people wrote about them in
`troubleshooting/*.yaml`. Decides which texts need such words: those that do not say the way out themselves.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from error_texts import Said, error_texts, is_text
from text_patterns import HOLE

from ratchet_operator.decide.conditions import REASONS
from ratchet_operator.decide.verdict import TABLE

ROOT = Path(__file__).parents[1]
WRITTEN = Path(__file__).parent / "troubleshooting"


@dataclass
class Entry:
    """One row of the page: a message and what to do, in the message's own words and in ours."""

    message: str
    section: str
    says: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    ours: str = ""


@dataclass(frozen=True)
class Written:
    """What people wrote: the sections, and what to do about reasons, verdicts and messages."""

    concepts: list[dict[str, Any]]
    reasons: dict[str, dict[str, str]]
    verdicts: dict[str, str]
    messages: dict[str, str]

    @staticmethod
    def read() -> Written:
        def of(name: str) -> Any:
            return yaml.safe_load((WRITTEN / f"{name}.yaml").read_text(encoding="utf-8"))

        messages = {text: group["do"] for group in of("messages") for text in group["messages"]}
        return Written(of("concepts"), of("reasons"), of("verdicts"), messages)

    def concept(self, module: str) -> dict[str, Any]:
        """The section of a module. Raises LookupError for one that is in none."""
        ways = [(name, concept) for concept in self.concepts for name in concept["modules"]]
        fitting = [(len(name), i) for i, (name, _) in enumerate(ways) if f"{module}.".startswith(f"{name}.")]
        if not fitting:
            raise LookupError(f"{module}: in no section of website/troubleshooting/concepts.yaml; add it to one")
        return ways[max(fitting)[1]][1]


def split(text: str) -> tuple[str, str]:
    """An error text's message and the way out that it names, which is empty where it names none."""
    message, _, way = text.partition("; ")
    if is_text(way):
        return message, way
    if (sentence := re.match(r"(.*?[^.])\. ([A-Z].*)", text)) and is_text(sentence[2]):
        return sentence[1], sentence[2]
    return re.sub(rf"[;:.,\s]*{HOLE}$", f": {HOLE}", message) if message.endswith(f": {HOLE}") else message, ""


def entries(texts: list[Said], written: Written) -> list[Entry]:
    """One entry for each message of a section, with all ways out that it names."""
    found: dict[tuple[str, str], Entry] = {}
    for said in texts:
        concept = written.concept(said.module)
        message, way = split(said.text)
        entry = found.setdefault((concept["title"], message), Entry(message, concept["title"]))
        entry.places.append(f"{said.module}:{said.line}")
        if way and way not in entry.says:
            entry.says.append(way)
        entry.ours = written.messages.get(message, "" if entry.says else concept.get("do", ""))
    return sorted(found.values(), key=lambda entry: _sorted_by(entry.message))


def missing(found: list[Entry], written: Written) -> list[str]:
    """What the table lacks or has too much, each as a line that says what to write."""
    lines = [
        f'{entry.places[0]}: "{entry.message}" names no way out; let the text name one after "; ", or write it into '
        "website/troubleshooting/messages.yaml"
        for entry in found
        if not entry.says and not entry.ours
    ]
    known = {entry.message for entry in found}
    lines += [
        f'website/troubleshooting/messages.yaml: nothing says "{message}" any more; remove it'
        for message in written.messages
        if message not in known
    ]
    reasons = {kind: set(reasons) for kind, reasons in REASONS.items()}
    said = {kind: set(reasons) for kind, reasons in written.reasons.items()}
    for kind in {*reasons, *said}:
        there, here = reasons.get(kind, set()), said.get(kind, set())
        lines += [f"website/troubleshooting/reasons.yaml: {kind} has no {name}" for name in sorted(here - there)]
        lines += [f"website/troubleshooting/reasons.yaml: {kind}/{name} is missing" for name in sorted(there - here)]
    verdicts = {str(verdict) for verdict in TABLE}
    lines += [f"website/troubleshooting/verdicts.yaml: {v}: is it a verdict?" for v in verdicts ^ set(written.verdicts)]
    return lines


def page(found: list[Entry], written: Written) -> str:
    """The page as Markdown."""
    lines = [(WRITTEN / "intro.md").read_text(encoding="utf-8").rstrip(), "", "## Conditions", ""]
    lines += ["`kubectl describe rlj NAME` has them, with a message that names the particulars.", ""]
    for kind, reasons in REASONS.items():
        lines += [f"### {kind}", "", "| reason | what it means | what to do |", "|---|---|---|"]
        lines += [f"| `{name}` | {meaning} | {written.reasons[kind][name]} |" for name, meaning in reasons.items()]
        lines.append("")
    lines += ["## Verdicts", "", "Why an attempt ended: `status.attempts[].verdict`. What each costs is in", ""]
    lines[-2] += " [conditions.md](conditions.md#verdicts)."
    lines += ["| verdict | what to do |", "|---|---|"]
    lines += [f"| `{verdict}` | {written.verdicts[str(verdict)]} |" for verdict in TABLE]
    for concept in written.concepts:
        lines += ["", f"## {concept['title']}", "", f"{concept['intro']} More: [{concept['page']}]({_link(concept)})."]
        lines += ["", "| message | what to do |", "|---|---|"]
        lines += [_row(entry) for entry in found if entry.section == concept["title"]]
    return "\n".join(lines) + "\n"


def _link(concept: dict[str, Any]) -> str:
    place = str(concept["page"])
    return "../CONTRIBUTING.md" if place == "project/contributing.md" else place


def _row(entry: Entry) -> str:
    ways = [f"`{_code(way)}`" for way in entry.says]
    said = f"The message says it: {' or '.join(ways)}" if ways else ""
    return f"| `{_code(entry.message)}` | {' '.join(filter(None, [entry.ours, said]))} |"


def _code(text: str) -> str:
    return text.replace("|", "\\|").replace("`", "'")


def _sorted_by(message: str) -> str:
    return re.sub(r"^\W+", "", message).lower()


if __name__ == "__main__":
    table = Written.read()
    print(page(entries(error_texts(ROOT), table), table), end="")
