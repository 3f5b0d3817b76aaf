"""What the site has beyond the files in docs/: MkDocs calls these functions while it builds.

Pages of the repository that lie outside docs/ (`pages.py`), formulas that need no script (`formulas.py`), and a
navigation that may name pages which are not written yet.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from formulas import with_mathml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pages import links_of_the_site, outside_pages, raw_files

DOCS = "docs"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Leaves out of the navigation what `extra.later` names and is not there yet."""
    docs = Path(config.docs_dir)
    there = {name for name in config.extra["later"] if (docs / name).exists()} | outside_pages(docs.parent).keys()
    config.nav = _without(config.nav, set(config.extra["later"]) - there)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages and files that lie outside docs/."""
    root = Path(config.docs_dir).parent
    for name, text in outside_pages(root).items():
        files.append(File.generated(config, name, content=text))
    for name, path in raw_files(root).items():
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: MkDocsConfig, **_: Any) -> str:
    """Has links to files of the repository lead to their pages."""
    if page.file.generated_by:
        return markdown  # made for the site
    return links_of_the_site(markdown, f"{DOCS}/{page.file.src_uri}", Path(config.docs_dir).parent)


def on_page_content(html: str, **_: Any) -> str:
    """Writes formulas as MathML, which browsers show without any script."""
    return with_mathml(html)


def _without(nav: Any, names: set[str]) -> Any:
    if isinstance(nav, list):
        return [entry for entry in (_without(each, names) for each in nav) if entry]
    if isinstance(nav, dict):
        left = {title: _without(inside, names) for title, inside in nav.items()}
        return {title: inside for title, inside in left.items() if inside}
    return None if nav in names else nav
