"""The built site as a test reads it: what every page links to, and the names that links may lead to."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass
class Page(HTMLParser):
    """One HTML file: `links` (of `a`), `sources` (what a browser fetches by itself), `names` (ids and anchors)."""

    file: Path
    links: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.file.read_text(encoding="utf-8"))

    def __hash__(self) -> int:
        return hash(self.file)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = {name: value for name, value in attrs if value is not None}
        self.names |= {said[name] for name in ("id", "name") if name in said}
        if tag in ("a", "area") and "href" in said:
            self.links.append(said["href"])
        elif tag == "link" and "href" in said and said.get("rel") not in ("next", "prev", "canonical"):
            self.sources.append(said["href"])
        elif "src" in said:
            self.sources.append(said["src"])


def pages(site: Path) -> dict[Path, Page]:
    """All pages but the one for addresses that do not exist, whose links begin at the server's root."""
    return {file: Page(file) for file in sorted(site.rglob("*.html")) if file.name != "404.html"}


def is_elsewhere(target: str) -> bool:
    """Whether a link leaves the site."""
    return bool(urlsplit(target).scheme or urlsplit(target).netloc)


def dead(site: dict[Path, Page]) -> list[str]:
    """What leads nowhere, as `page -> target`."""
    found = []
    for file, page in site.items():
        for target in [*page.links, *page.sources]:
            if is_elsewhere(target) or target.startswith("data:"):
                continue
            parts = urlsplit(target)
            there = Path(os.path.normpath(file.parent / unquote(parts.path))) if parts.path else file
            names = site[there].names if there in site else set()
            if not there.is_file() or (parts.fragment and unquote(parts.fragment) not in names):
                found.append(f"{file.name} -> {target}")
    return found
