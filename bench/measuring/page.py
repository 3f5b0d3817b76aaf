"""A page whose text is written by hand and whose measurements are put in between two marks.

Pure: from text to text.
"""

from __future__ import annotations


def renewed(text: str, name: str, question: str, found: list[str]) -> str:
    """The page with what was found of an experiment between its two marks; a new section where it has none.

    Raises SystemExit where the second mark is missing, which has to be put back by hand."""
    first, last = f"<!-- measured: {name} -->", f"<!-- end: {name} -->"
    if first not in text:
        text += f"\n## {question}\n\n{first}\n{last}\n"
    before, _, rest = text.partition(first)
    if last not in rest:
        raise SystemExit(f"learning.md: {first} has no {last}; put it back where what is measured ends")
    return "\n".join([f"{before}{first}", "", *found, f"{last}{rest.partition(last)[2]}"])
