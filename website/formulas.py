"""Formulas of a page as MathML: what browsers show without a script or a font of their own."""

from __future__ import annotations

import html as entities
import re

from latex2mathml.converter import convert

_BLOCK = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)
_INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)


def with_mathml(html: str) -> str:
    """HTML whose formulas, as pymdownx.arithmatex marks them, are MathML."""
    html = _BLOCK.sub(lambda found: f'<div class="formula">{_mathml(found[1], "block")}</div>', html)
    return _INLINE.sub(lambda found: _mathml(found[1], "inline"), html)


def _mathml(latex: str, display: str) -> str:
    return convert(entities.unescape(latex).strip(), display=display)
