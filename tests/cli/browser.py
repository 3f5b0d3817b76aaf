"""A real browser for tests that look at pages: headless Chromium, spoken to by its DevTools protocol over loopback."""

from __future__ import annotations

import asyncio
import base64
import shutil
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SECONDS = 120


class Tab:
    """One page. `complaints`: errors of the console, exceptions, violations of the content policy, requests that left
    the page."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse):
        self._socket = socket
        self._number = 0
        self.complaints: list[str] = []

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        while True:
            said = await asyncio.wait_for(self._socket.receive_json(), SECONDS)
            if said.get("id") == self._number:
                assert "error" not in said, said
                result: dict[str, Any] = said["result"]
                return result
            self._hear(said)

    def _hear(self, said: dict[str, Any]) -> None:
        method, about = said.get("method"), said.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.complaints.append(str(about["exceptionDetails"].get("exception", about)))
        elif method == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
            self.complaints.append(about["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning"):
            self.complaints.append(str(about["args"]))
        elif method == "Network.requestWillBeSent" and not about["request"]["url"].startswith(("file:", "data:")):
            self.complaints.append(f"asked for {about['request']['url']}")

    async def open(self, file: Path) -> None:
        await self.call("Page.navigate", url=file.as_uri())
        deadline = time.monotonic() + SECONDS
        there = "document.readyState === 'complete' && location.href !== 'about:blank'"
        while not await self.value(there):
            assert time.monotonic() < deadline, "the page does not load"
            await asyncio.sleep(0.05)

    async def value(self, expression: str) -> Any:
        found = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def look(self, width: int, *, dark: bool = False, media: str = "screen") -> None:
        """A window so wide, in light or dark."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        await self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        await self.call("Emulation.setEmulatedMedia", media=media, features=scheme)

    async def picture(self, file: Path, height: int = 0) -> None:
        """A PNG of the window, or of so much of the page from its top."""
        width = await self.value("innerWidth")
        clip = {"clip": {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}} if height else {}
        taken = await self.call("Page.captureScreenshot", captureBeyondViewport=bool(height), **clip)
        file.write_bytes(base64.b64decode(taken["data"]))


def with_tab(folder: Path, work: Callable[[Tab], Awaitable[None]]) -> None:
    """Starts a browser with a profile in `folder`, does the work in a tab, ends the browser."""
    assert PROGRAM is not None
    quiet = ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-gpu"]
    command = [PROGRAM, "--headless=new", "--no-sandbox", *quiet, "--remote-debugging-port=0"]
    command.append(f"--user-data-dir={folder}")
    with open(folder / "chromium.log", "wb") as log:
        child = subprocess.Popen([*command, "about:blank"], stdout=log, stderr=log, start_new_session=True)
    try:
        asyncio.run(_work(folder / "DevToolsActivePort", child, work))
    finally:
        child.terminate()
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


async def _work(port_file: Path, child: subprocess.Popen[bytes], work: Callable[[Tab], Awaitable[None]]) -> None:
    deadline = time.monotonic() + SECONDS
    while not port_file.exists() or not port_file.read_text().strip():
        assert child.poll() is None, (port_file.parent / "chromium.log").read_text(errors="replace")[-2000:]
        assert time.monotonic() < deadline, "the browser does not start"
        await asyncio.sleep(0.1)
    port = port_file.read_text().split()[0]
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
            address = next(one["webSocketDebuggerUrl"] for one in await answer.json() if one["type"] == "page")
        async with session.ws_connect(address, max_msg_size=0) as socket:
            tab = Tab(socket)
            for domain in ("Page", "Runtime", "Log", "Network"):
                await tab.call(f"{domain}.enable")
            await work(tab)
