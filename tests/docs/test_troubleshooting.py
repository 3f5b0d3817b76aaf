"""Every condition reason, verdict and error text of the product has an entry in docs/troubleshooting.md."""

from __future__ import annotations

from pathlib import Path

import pytest
from error_texts import Said, error_texts
from text_patterns import Code, Reader
from troubleshooting import Written, entries, missing, page, split

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def texts() -> list[Said]:
    return error_texts(ROOT)


def test_every_error_text_has_an_entry_with_a_way_out(texts: list[Said]) -> None:
    written = Written.read()
    assert missing(entries(texts, written), written) == []


def test_the_page_is_what_the_code_says(texts: list[Said]) -> None:
    """`make generate` writes it anew."""
    written = Written.read()
    assert (ROOT / "docs/troubleshooting.md").read_text() == page(entries(texts, written), written)


def test_texts_that_users_have_seen_are_found(texts: list[Said]) -> None:
    """One of each way to make an error text: raise, fail, a yielded pair, a rule, a problem, a finding, a table."""
    said = {text.text for text in texts}
    for text in (
        "…: no manifest in it",
        "stopped at step …: …; run the same command again to go on",
        "… is not in spec.datasets; did you mean …?",
        "a group of one has nothing to be compared with; use groupSize 2 or more, or advantage.estimator gae "
        "(method ppo)",
        "unknown field; did you mean …?",
        "there is none of that name; kubectl create serviceaccount … --namespace …",
        "…: …; mount it writable",
        "JAX sees … slices, the placement has … (…); podTemplate.env must not set MEGASCALE variables, and every "
        "slice is a node pool of its own",
    ):
        assert text in said, text


SOURCE = """
def broken(x):
    text = f"{x} is broken" if x else "all is broken"
    if x > 3:
        text += f"; take {x - 1}"
    raise ValueError(text)

def way(x):
    return "mend it" if x else "leave it"

def other(x):
    raise ValueError(f"{x!r} is wrong; {way(x)}")

def circle(text):
    text = text or text
    raise ValueError(text)
"""


def test_the_texts_of_an_expression_are_followed_through_names_and_calls(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(SOURCE)
    code = Code.read([tmp_path])
    module = code.modules["module"]

    def said(function: str) -> list[str]:
        raised = next(n for n in module.functions[function].body if type(n).__name__ == "Raise")
        return Reader(code, module, module.functions[function]).texts(raised.exc.args[0])  # type: ignore[attr-defined]

    assert said("broken") == ["… is broken", "all is broken", "… is broken; take …", "all is broken; take …"]
    assert said("other") == ["… is wrong; mend it", "… is wrong; leave it"]
    assert said("circle") == ["…"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("… is empty; fill it in", ("… is empty", "fill it in")),
        ("no journal is there. Restore it from a copy", ("no journal is there", "Restore it from a copy")),
        ("…: cannot be read: …", ("…: cannot be read: …", "")),
        ("tensors do not fit; …", ("tensors do not fit", "")),
    ],
)
def test_a_text_is_parted_into_what_is_wrong_and_the_way_out(text: str, parts: tuple[str, str]) -> None:
    assert split(text) == parts


def test_a_new_error_text_without_a_way_out_is_named(texts: list[Said]) -> None:
    written = Written.read()
    fresh = [*texts, Said("the moon is in the way", "ratchet_cli.train", "fail", 7)]
    (line,) = missing(entries(fresh, written), written)
    assert line.startswith('ratchet_cli.train:7: "the moon is in the way" names no way out; ')
    helpful = [*texts, Said("the moon is in the way; wait a day", "ratchet_cli.train", "fail", 7)]
    assert missing(entries(helpful, written), written) == []


def test_an_entry_that_nothing_says_any_more_is_named(texts: list[Said]) -> None:
    written = Written.read()
    written.messages["the sun is in the way"] = "Wait."
    written.reasons["Placed"]["InTheWay"] = "Wait."
    del written.verdicts["Preempted"]
    lines = missing(entries(texts, written), written)
    assert [line.partition(": ")[2] for line in lines] == [
        'nothing says "the sun is in the way" any more; remove it',
        "Placed has no InTheWay",
        "Preempted: is it a verdict?",
    ]


def test_a_module_of_no_section_is_named() -> None:
    with pytest.raises(
        LookupError, match=r"ratchet_new\.thing: in no section of website/troubleshooting/concepts\.yaml"
    ):
        Written.read().concept("ratchet_new.thing")
