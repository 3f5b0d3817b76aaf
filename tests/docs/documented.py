"""The commands that README, docs/ and the comments of examples print, as they are printed.

Decides what a command is: in a shell block each line that begins with a known program (where a block shows a prompt,
each line after `$ `); in a text, a span of code that begins with one.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fragments import blocks

OURS = ("ratchet", "make", "kubectl", "helm")
OTHERS = ("gcloud", "export", "sed", "python", "pip", "source", "eval")
SHELLS = ("", "sh", "shell", "bash", "console")
GENERATED = ("docs/troubleshooting.md", "docs/conditions.md", "docs/api.md")
"""Pages whose spans of code are messages and fields."""


@dataclass(frozen=True)
class Command:
    """One line that is to be typed, without its comment."""

    page: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    def simple(self) -> list[list[str]]:
        """The simple commands of the line, words apart, those inside `$( )` included."""
        text = self.text
        if re.search(
            r" \[-", text
        ):  # how a command is called, not a call: the first of several choices stands for them
            text = re.sub(r"[\[\]]", "", re.sub(r"(\w+)(?:\|\w+)+", r"\1", text))
        inside = [shlex.split(found) for found in re.findall(r"\$\(([^()]+)\)", text)]
        reader = shlex.shlex(re.sub(r"\$\([^()]+\)", "X", text), posix=True, punctuation_chars="|&;<>")
        reader.whitespace_split, reader.commenters = True, ""
        found: list[list[str]] = [[]]
        for word in reader:
            if set(word) <= set("|&;"):
                found.append([])
            elif set(word) <= set("<>") or (found[-1] and found[-1][-1] == ">"):
                found[-1].append(">")  # what it is written to
            else:
                found[-1].append(word)
        return [[w for w in words if w != ">"] for words in [*found, *inside] if words]


def commands(root: Path) -> list[Command]:
    """Those of shell blocks, in the order of the pages."""
    return [
        Command(block.page, line, text)
        for block in blocks(root)
        if block.language in SHELLS
        for line, text in _lines(block.text, block.line + 1)
        if text.split()[0] in (*OURS, *OTHERS)
    ]


def mentioned(root: Path) -> list[Command]:
    """Those of spans of code in texts, and those in the comments at the top of examples. Decisions are history."""
    found = []
    for file in [root / "README.md", root / "CONTRIBUTING.md", *sorted((root / "docs").glob("*.md"))]:
        page = str(file.relative_to(root))
        text = re.sub(r"^( *)```.*?^\1```$", _blank, file.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for span in re.finditer(rf"(?<!`)`((?:{'|'.join(OURS)}) [^`]+)`", text):
            if page not in GENERATED or span[1].startswith("ratchet "):
                found.append(Command(page, text.count("\n", 0, span.start()) + 1, span[1].replace("\n", " ")))
    for file in sorted((root / "examples").rglob("*.yaml")):
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            if said := re.match(rf"#\s+((?:{'|'.join(OURS)}) \S.*)", line):
                found.append(Command(str(file.relative_to(root)), number, said[1]))
    return [command for command in found if "…" not in command.text]


def _blank(found: re.Match[str]) -> str:
    return "\n" * found[0].count("\n")


def _lines(text: str, first: int) -> Iterator[tuple[int, str]]:
    """(line, command) with continuations joined and comments left out."""
    prompt = any(line.startswith("$ ") for line in text.splitlines())
    whole, begin = "", first
    for number, line in enumerate(text.splitlines(), first):
        if prompt and not whole and not line.startswith("$ "):
            continue
        begin = begin if whole else number
        line = re.sub(r"\s+#\s.*$", "", line.removeprefix("$ ") if prompt else line).rstrip()
        whole += line.removesuffix("\\")
        if not line.endswith("\\"):
            if whole.strip() and not whole.lstrip().startswith("#"):
                yield begin, re.sub(r"\s+", " ", whole.strip()) if "'" not in whole else whole.strip()
            whole = ""
