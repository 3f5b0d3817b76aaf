"""The report's page in a real browser: no complaint, legible in light, dark and narrow windows, values on hovering.

Where there is no Chromium these are skipped; what needs no browser is in `test_report.py`.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.cli import browser
from tests.cli.report_runs import HOSTILE, write_run

from ratchet_cli.main import main

pytestmark = pytest.mark.skipif(browser.PROGRAM is None, reason="there is no Chromium on this machine")

CONTRAST = """
(() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const luminance = ([r, g, b]) => [r, g, b]
    .map((c) => (c / 255 <= 0.03928 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color.length === 3 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const found = [];
  const texts = "h1,h2,h3,p,dt,dd,td,th,pre,.entry,.chip,.who,summary,small,.stage";
  for (const element of document.querySelectorAll(texts)) {
    if (!element.textContent.trim() || element.querySelector("*:not(i)")) continue;
    const [a, b] = [luminance(parse(getComputedStyle(element).color)), luminance(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push(`${element.tagName}.${element.className} ${ratio.toFixed(2)}`);
  }
  return found.join("; ");
})()
"""


def made(tmp_path: Path) -> Path:
    out = tmp_path / "page.html"
    folder = write_run(tmp_path / "run", response=HOSTILE)
    done = CliRunner().invoke(main, ["report", str(folder), "-o", str(out)])
    assert done.exit_code == 0, done.output
    return out


def test_the_page_is_legible_everywhere_and_complains_of_nothing(tmp_path):
    page = made(tmp_path)

    async def work(tab: browser.Tab) -> None:
        for width, dark in ((1200, False), (1200, True), (400, False), (400, True)):
            await tab.look(width, dark=dark)
            await tab.open(page)
            assert await tab.value("document.title") == "two-stages: Ratchet report"
            assert await tab.value("document.documentElement.scrollWidth") <= width, "nothing sticks out"
            assert await tab.value(CONTRAST) == "", (width, dark)
        await tab.look(1000, dark=True, media="print")
        assert await tab.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert await tab.value(CONTRAST) == "", "print"
        assert tab.complaints == []

    (tmp_path / "profile").mkdir()
    browser.with_tab(tmp_path / "profile", work)


def test_hovering_and_arrow_keys_show_values(tmp_path):
    page = made(tmp_path)

    async def work(tab: browser.Tab) -> None:
        await tab.look(1200)
        await tab.open(page)
        output = "document.querySelector('svg.curve').parentNode.querySelector('output').textContent"
        assert await tab.value(output) == ""
        box = "JSON.stringify(document.querySelector('svg.curve').getBoundingClientRect())"
        await tab.value("document.querySelector('svg.curve').scrollIntoView({block: 'center'})")
        where = json.loads(await tab.value(box))
        at = {"x": where["x"] + where["width"] * 0.9, "y": where["y"] + where["height"] / 2}
        await tab.call("Input.dispatchMouseEvent", type="mouseMoved", **at)
        shown = await tab.value(output)
        assert shown.startswith("step ")
        assert "reward 0." in shown
        await tab.value("document.querySelector('svg.curve').focus()")
        for kind in ("keyDown", "keyUp"):
            await tab.call("Input.dispatchKeyEvent", type=kind, key="ArrowLeft", code="ArrowLeft")
        moved = await tab.value(output)
        assert int(moved.split(":")[0].removeprefix("step ")) == int(shown.split(":")[0].removeprefix("step ")) - 1
        await tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=2, y=2)
        assert await tab.value(output) == ""
        assert tab.complaints == []

    (tmp_path / "profile").mkdir()
    browser.with_tab(tmp_path / "profile", work)
