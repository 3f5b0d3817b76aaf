"""The documentation as a site: it is whole, leads nowhere that is not there, and fetches nothing of others."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from site_files import dead, is_elsewhere, pages

ROOT = Path(__file__).parents[2]


def test_every_page_and_every_example_is_on_the_site(site: Path) -> None:
    docs = [file.relative_to(ROOT / "docs") for file in (ROOT / "docs").rglob("*.md")]
    wanted = {str(file.with_suffix(".html")).replace("README.html", "index.html") for file in docs}
    wanted |= {str(file.relative_to(ROOT).with_suffix(".html")) for file in (ROOT / "examples").rglob("*.yaml")}
    wanted |= {f"project/{name}.html" for name in ("architecture", "contributing", "changelog", "license")}
    assert wanted <= {str(page.relative_to(site)) for page in pages(site)}


def test_links_anchors_and_pictures_lead_somewhere(site: Path) -> None:
    found = pages(site)
    assert sum(len(page.links) for page in found.values()) > 1000
    assert dead(found) == []


def test_a_link_that_leads_nowhere_is_seen(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<a href="b.html#there">x</a><a href="b.html#gone">x</a><img src="c.png">')
    (tmp_path / "b.html").write_text('<h2 id="there"></h2><a href="a.html">x</a><a href="https://example.org">x</a>')
    assert dead(pages(tmp_path)) == ["a.html -> b.html#gone", "a.html -> c.png"]


def test_a_reader_fetches_nothing_from_elsewhere(site: Path) -> None:
    found = pages(site)
    assert [source for page in found.values() for source in page.sources if is_elsewhere(source)] == []
    for file in site.rglob("*.css"):
        assert re.findall(r"(?:url\(|@import\s*)['\"]?(?:https?:)?//[^)\s]*", file.read_text()) == []


def test_links_to_elsewhere_are_https_and_listed(site: Path) -> None:
    """They are not asked: a test must not depend on servers of others."""
    elsewhere = sorted({link for page in pages(site).values() for link in page.links if is_elsewhere(link)})
    print(*elsewhere, sep="\n")
    assert all(link.startswith("https://") for link in elsewhere)


def test_the_navigation_names_each_page_once_and_no_page_that_will_never_be() -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    named = re.findall(r": ([\w/-]+\.md)$", text[text.index("\nnav:") :], re.MULTILINE)
    assert len(named) == len(set(named))
    later = re.search(r"^  later: (\[.*\])$", text, re.MULTILINE)
    assert later
    assert set(yaml.safe_load(later[1])) <= set(named)


def test_formulas_are_shown_without_a_script(site: Path) -> None:
    text = (site / "methods.html").read_text()
    assert text.count("<math") > 15
    assert "arithmatex" not in text
