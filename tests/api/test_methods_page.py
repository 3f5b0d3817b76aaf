"""docs/methods.md: every preset has a section with what it is for, its formula, its knobs, and when not to take it."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from ratchet_api.presets import PRESETS, Preset

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/methods.md").read_text()
SECTIONS = {
    name: text
    for title, text in re.findall(r"^### (.+?)\n(.*?)(?=^##|\Z)", PAGE, flags=re.DOTALL | re.MULTILINE)
    for name in title.split(", ")
}


def words(value: object) -> list[str]:
    """How the page writes a value of a preset."""
    if isinstance(value, dict):
        return [str(v) for v in value.values() if v != "loss"]
    if isinstance(value, tuple):
        return [", ".join(f"{v:.4f}".rstrip("0") for v in value)]
    return [str(value)]


def own(preset: Preset) -> list[str]:
    """What a preset sets otherwise than grpo, as words."""
    pairs = [(getattr(preset, f.name), getattr(PRESETS["grpo"], f.name)) for f in fields(preset)]
    return [word for value, plain in pairs if value != plain for word in words(value)]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_a_section_with_all_parts(name: str) -> None:
    section = " ".join(SECTIONS[name].split())
    for part in ("*For* ", "*Watch* ", "*Not* ", "$$", "| knob |", "source |"):
        assert part in section, part


@pytest.mark.parametrize("name", PRESETS)
def test_its_section_names_every_knob_that_differs_from_grpo(name: str) -> None:
    missing = [word for word in own(PRESETS[name]) if word not in SECTIONS[name]]
    assert not missing


@pytest.mark.parametrize("name", PRESETS)
def test_its_section_leads_to_its_example(name: str) -> None:
    links = re.findall(r"\]\(\.\./([^)]+)\)", SECTIONS[name])
    assert f"examples/methods/{name}.yaml" in links


def test_every_link_to_an_example_leads_somewhere() -> None:
    links = re.findall(r"\]\(\.\./(examples/[^)]+)\)", PAGE)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("file", sorted((ROOT / "examples/recipes").glob("*.yaml")), ids=lambda f: f.stem)
def test_every_recipe_is_on_the_page(file: Path) -> None:
    assert f"../examples/recipes/{file.name}" in PAGE
