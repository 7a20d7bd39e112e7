"""A page seen by a headless Chromium, over its DevTools protocol: what it logs, loads and looks like.

`python -m tests.report.browser runs/demo/report.html --out runs/seen` looks at a report on a desktop, on a phone, in
dark and on paper, writes the pictures, and fails when the page is not as promised. Needs Debian's `chromium`.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import functools
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tornado.websocket import WebSocketClientConnection, websocket_connect

CHROMIUM = shutil.which("chromium")
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars", "--remote-debugging-port=0",
)  # fmt: skip
_VIEWS = {
    "desktop": (1280, False),
    "desktop-dark": (1280, True),
    "phone": (390, False),
    "phone-dark": (390, True),
}


@dataclass(slots=True)
class Seen:
    """One view of a page. `problems`: errors it logged; `loads`: addresses it asked for beyond itself."""

    width: int
    scroll_width: int
    ink: str
    paper: str
    problems: list[str]
    loads: list[str]
    picture: bytes


@dataclass(slots=True)
class _Page:
    socket: WebSocketClientConnection
    problems: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    loaded: bool = False
    _n: int = 0

    async def ask(self, method: str, **params: Any) -> Any:
        self._n += 1
        mine = self._n
        await self.socket.write_message(json.dumps({"id": mine, "method": method, "params": params}))
        while (answer := await self._next()).get("id") != mine:
            pass
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    async def until_loaded(self) -> None:
        while not self.loaded:
            await self._next()

    async def _next(self) -> dict[str, Any]:
        text = await self.socket.read_message()
        if text is None:
            raise RuntimeError("chromium closed the page")
        message: dict[str, Any] = json.loads(text)
        params = message.get("params", {})
        match message.get("method"):
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                self.problems.append(params["entry"]["text"])
            case "Runtime.exceptionThrown" | "Runtime.consoleAPICalled":
                self.problems.append(json.dumps(params)[:300])
            case "Network.requestWillBeSent" if not params["request"]["url"].startswith("data:"):
                self.loads.append(params["request"]["url"])
            case "Page.loadEventFired":
                self.loaded = True
        return message


def look(path: Path) -> tuple[dict[str, Seen], bytes]:
    """Every view of the HTML file at `path`, and its PDF; scripts are switched off, as a mail program does."""
    handler = functools.partial(_Quiet, directory=str(path.resolve().parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            return asyncio.run(_look(f"http://127.0.0.1:{server.server_port}/{path.name}"))
        finally:
            server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    """Chromium takes a `file:` page for a stranger to itself and says so; a served one is what users open."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


async def _look(address: str) -> tuple[dict[str, Seen], bytes]:
    seen = {}
    pages: list[_Page] = []
    async with _browser() as port:
        for name, (width, dark) in _VIEWS.items():
            page = await _open(port)
            pages.append(page)
            await page.ask("Emulation.setScriptExecutionDisabled", value=True)
            await page.ask(
                "Emulation.setDeviceMetricsOverride",
                width=width, height=844, deviceScaleFactor=1, mobile=width < 600,
            )  # fmt: skip
            scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
            await page.ask("Emulation.setEmulatedMedia", features=[scheme])
            await page.ask("Page.navigate", url=address)
            await page.until_loaded()
            seen[name] = await _view(page, address, width)
        pdf = base64.b64decode((await page.ask("Page.printToPDF", printBackground=True))["data"])
        for page in pages:
            page.socket.close()
            while await page.socket.read_message() is not None:
                pass
    return seen, pdf


async def _view(page: _Page, address: str, width: int) -> Seen:
    size = (await page.ask("Page.getLayoutMetrics"))["cssContentSize"]
    root = (await page.ask("DOM.getDocument"))["root"]["nodeId"]
    body = (await page.ask("DOM.querySelector", nodeId=root, selector="body"))["nodeId"]
    await page.ask("CSS.enable")
    style = {
        entry["name"]: entry["value"]
        for entry in (await page.ask("CSS.getComputedStyleForNode", nodeId=body))["computedStyle"]
    }
    picture = await page.ask(
        "Page.captureScreenshot",
        captureBeyondViewport=True,
        clip={"x": 0, "y": 0, "width": width, "height": min(size["height"], 14_000), "scale": 1},
    )
    return Seen(
        width,
        int(size["width"]),
        style["color"],
        style["background-color"],
        page.problems,
        [url for url in page.loads if url != address],
        base64.b64decode(picture["data"]),
    )


async def _open(port: int) -> _Page:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/json/new", method="PUT")
    with urllib.request.urlopen(request) as answer:
        address = json.load(answer)["webSocketDebuggerUrl"]
    page = _Page(await websocket_connect(address, max_message_size=1 << 28))
    for domain in ("Page", "Log", "Runtime", "Network", "DOM"):
        await page.ask(f"{domain}.enable")
    return page


@asynccontextmanager
async def _browser() -> AsyncIterator[int]:
    if CHROMIUM is None:
        raise RuntimeError("chromium is not installed: apt-get install chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [CHROMIUM, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield _port_of(Path(profile) / "DevToolsActivePort")
        finally:
            process.terminate()
            process.wait()


def _port_of(file: Path) -> int:
    end = time.monotonic() + 30.0
    while time.monotonic() < end:
        if file.exists() and (lines := file.read_text().split()):
            return int(lines[0])
        time.sleep(0.05)
    raise TimeoutError("chromium did not open its port in 30 s")


def faults_of(seen: dict[str, Seen]) -> list[str]:
    """What is not as promised, in words."""
    faults = []
    for name, view in seen.items():
        faults += [f"{name}: logged {problem}" for problem in view.problems]
        faults += [f"{name}: loads {url}" for url in view.loads]
        if view.scroll_width > view.width:
            faults.append(f"{name}: {view.scroll_width} px wide on {view.width} px")
    for width in ("desktop", "phone"):
        if seen[width].paper == seen[f"{width}-dark"].paper:
            faults.append(f"{width}: dark is as light")
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    seen, pdf = look(options.page)
    for name, view in seen.items():
        (options.out / f"{name}.png").write_bytes(view.picture)
    (options.out / "paper.pdf").write_bytes(pdf)
    faults = faults_of(seen)
    print("\n".join(faults) or "as promised")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
