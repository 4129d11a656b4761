"""A headless Chromium of the system, driven by the DevTools protocol: no driver, nothing downloaded.

https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

START_SECONDS = 60.0
WAIT_SECONDS = 45.0
NAMES = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # tests run as root in containers, where its sandbox cannot be made
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-extensions",
    "--no-first-run",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--remote-debugging-port=0",
)


def find_chromium() -> str:
    """The browser's path; the test is skipped where there is none, but never in CI."""
    found = next((path for path in map(shutil.which, NAMES) if path), None)
    if found is None:
        if os.environ.get("CI") or os.environ.get("CHROMIUM") == "required":
            pytest.fail("there is no Chromium; .ci/run installs it from the system's packages")
        pytest.skip("there is no Chromium here; Debian's package is chromium")
    return found


class Chromium:
    """A running browser. Each :meth:`person` is a window of its own with cookies of its own."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._tabs: dict[str, Tab] = {}
        self._reader = asyncio.create_task(self._read())

    async def call(self, method: str, session: str | None = None, **parameters: Any) -> Any:
        """One command of the protocol."""
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_str(json.dumps(message))
        async with asyncio.timeout(WAIT_SECONDS):
            return await self._answers[number]

    async def person(self, *, width: int = 1280, height: int = 900, dark: bool = False, phone: bool = False) -> Tab:
        """A new window with its own cookies."""
        context = (await self.call("Target.createBrowserContext"))["browserContextId"]
        target = await self.call("Target.createTarget", url="about:blank", browserContextId=context)
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        tab = Tab(self, attached["sessionId"])
        self._tabs[tab.session] = tab
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            await tab.call(f"{domain}.enable")
        await tab.look(width=width, height=height, dark=dark, phone=phone)
        return tab

    async def close(self) -> None:
        self._reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reader
        await self._socket.close()

    async def _read(self) -> None:
        async for message in self._socket:
            document = json.loads(message.data)
            waiting = self._answers.pop(document.get("id", 0), None)
            if waiting is not None and not waiting.done():
                if "error" in document:
                    waiting.set_exception(AssertionError(document["error"]))
                else:
                    waiting.set_result(document["result"])
            elif "method" in document and document.get("sessionId") in self._tabs:
                self._tabs[document["sessionId"]].heard(document["method"], document["params"])


class Tab:
    """One window, and all that it complained of and asked for."""

    def __init__(self, browser: Chromium, session: str) -> None:
        self.session = session
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.failed: list[str] = []
        self._browser = browser

    async def call(self, method: str, **parameters: Any) -> Any:
        return await self._browser.call(method, self.session, **parameters)

    def heard(self, method: str, given: Any) -> None:
        """Take an event in."""
        if method == "Runtime.consoleAPICalled" and given["type"] in ("error", "warning", "assert"):
            self.complaints.append(str([one.get("value", one.get("description")) for one in given["args"]]))
        elif method == "Runtime.exceptionThrown":
            details = given["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Log.entryAdded" and given["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"{given['entry']['text']} {given['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(given["request"]["url"])
        elif method == "Network.responseReceived" and given["response"]["status"] >= 400:
            self.failed.append(f"{given['response']['status']} {given['response']['url']}")

    async def look(self, *, width: int, height: int, dark: bool = False, phone: bool = False) -> None:
        """Set the size of the window, and what the person likes."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        await self.call("Emulation.setTouchEmulationEnabled", enabled=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        motion = {"name": "prefers-reduced-motion", "value": "reduce"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme, motion])

    async def go(self, url: str) -> None:
        """Open a page, and wait until it is there with all that it loads."""
        await self.call("Page.navigate", url=url)
        await self.until(f"location.href.split('#')[0] === {json.dumps(url.split('#')[0])}")
        await self.loaded()

    async def loaded(self) -> None:
        await self.until("document.readyState === 'complete'")

    async def run(self, script: str) -> Any:
        """What an expression gives; awaited when it is a promise."""
        answer = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def until(self, condition: str, seconds: float = WAIT_SECONDS) -> None:
        """Wait until an expression is true, also across pages."""
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            with contextlib.suppress(AssertionError):  # between two pages there is nothing to ask
                if await self.run(f"Boolean({condition})"):
                    return
            if asyncio.get_running_loop().time() > deadline:
                seen = await self.run("location.href + ' ' + document.body.innerText.slice(0, 600)")
                raise AssertionError(f"never came: {condition}\n{seen}\n{self.complaints}")
            await asyncio.sleep(0.05)

    async def fill(self, selector: str, text: str) -> None:
        """Write into a field, as a person does."""
        await self.run(f"document.querySelector({json.dumps(selector)}).focus()")
        await self.call("Input.insertText", text=text)

    async def press(self, key: str, code: int, text: str = "") -> None:
        """Press a key; ``code``: its Windows virtual key code."""
        shared = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        await self.call("Input.dispatchKeyEvent", type="keyDown", **shared, **({"text": text} if text else {}))
        await self.call("Input.dispatchKeyEvent", type="keyUp", **shared)

    async def click(self, selector: str) -> None:
        """Click into the middle of an element with the mouse."""
        where = await self.run(
            "(() => {"
            f"const one = document.querySelector({json.dumps(selector)});"
            "one.scrollIntoView({block: 'center', behavior: 'instant'});"
            "const box = one.getBoundingClientRect();"
            "return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        shared = {"x": where[0], "y": where[1], "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, **shared)

    async def choose(self, selector: str, files: Sequence[Path]) -> None:
        """Choose files in the chooser of an input."""
        document = await self.call("DOM.getDocument")
        node = await self.call("DOM.querySelector", nodeId=document["root"]["nodeId"], selector=selector)
        await self.call("DOM.setFileInputFiles", files=[str(one) for one in files], nodeId=node["nodeId"])

    async def picture(self, path: Path, *, whole: bool = False) -> None:
        """A screenshot, of the window or of the whole page."""
        shot = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        await asyncio.to_thread(path.write_bytes, base64.b64decode(shot["data"]))

    async def pictures_are_there(self) -> None:
        """Wait until all pictures in sight are shown."""
        await self.until(
            "[...document.images].filter(one => one.getBoundingClientRect().top < innerHeight)"
            ".every(one => one.complete && one.naturalWidth > 0)"
        )

    def hosts(self) -> set[str]:
        """All hosts, with ports, that were asked for something."""
        return {urlsplit(url).netloc for url in self.requests if url.startswith(("http", "ws"))}


@asynccontextmanager
async def chromium(folder: Path, find: Callable[[], str] = find_chromium) -> AsyncIterator[Chromium]:
    """A browser with its profile in a folder, until the end of the block."""
    process = await asyncio.create_subprocess_exec(
        find(),
        *OPTIONS,
        f"--user-data-dir={folder}",
        "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "HOME": str(folder.parent)},
    )
    assert process.stderr is not None
    drain: asyncio.Task[bytes] | None = None
    try:
        url = ""
        async with asyncio.timeout(START_SECONDS):
            while not url:
                line = (await process.stderr.readline()).decode("utf-8", "replace")
                assert line, "Chromium ended before it listened"
                if line.startswith("DevTools listening on "):
                    url = line.removeprefix("DevTools listening on ").strip()
        drain = asyncio.create_task(process.stderr.read())
        async with aiohttp.ClientSession() as session, session.ws_connect(url, max_msg_size=0) as socket:
            browser = Chromium(socket)
            try:
                yield browser
            finally:
                await browser.close()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        if drain is not None:
            await drain
