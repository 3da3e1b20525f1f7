"""Chromium, driven by its DevTools protocol over a pipe: nothing but the browser itself is needed."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TEXT = "document.body.innerText"
NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str | None:
    """Where a browser is; None if there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Browser:
    """One page of a browser.

    Attributes:
        problems: errors and warnings of its console, exceptions, and requests of anything but files, data and `site`.
    """

    def __init__(self, to: int, back: int, site: str | None = None) -> None:
        self._site = site
        self._allowed = ("file:", "data:", *([site] if site else []))
        self._to, self._back = os.fdopen(to, "wb", buffering=0), os.fdopen(back, "rb")
        self._count, self._session, self._unread = 0, "", b""
        self._seen: list[dict[str, Any]] = []
        self.problems: list[str] = []

    def start(self) -> None:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        if self._site is None:
            offline = {"latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
            self.call("Network.emulateNetworkConditions", offline=True, **offline)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        message |= {"sessionId": self._session} if self._session else {}
        self._to.write(json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._count:
            self._note(answer)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def open(self, page: Path | str, width: int, height: int = 900, mobile: bool = False) -> None:
        """Shows a file or an address in a window of so many CSS pixels, and waits until it is loaded."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        self.call("Emulation.setTouchEmulationEnabled", enabled=mobile)
        self._seen.clear()
        self.call("Page.navigate", url=page.resolve().as_uri() if isinstance(page, Path) else page)
        while not any(each.get("method") == "Page.loadEventFired" for each in self._seen):
            self._note(self._read())

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression, promises awaited."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, expression: str, timeout_s: float = 60) -> Any:
        """The value of a JavaScript expression once it is true, for pages that fill themselves."""
        until = time.monotonic() + timeout_s
        while not (value := self.ask(expression)):
            assert time.monotonic() < until, f"{expression} is not true after {timeout_s} s: {self.ask(TEXT)}"
            time.sleep(0.2)
        return value

    def point_at(self, x: float, y: float) -> None:
        for shift in (-1, 0):
            self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x + shift, y=y)

    def picture(self, file: Path, whole: bool = True) -> None:
        """A PNG of the page, or of what its window shows."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole, **self._clip(whole))
        file.write_bytes(base64.b64decode(shot["data"]))

    def _clip(self, whole: bool) -> dict[str, Any]:
        if not whole:
            return {}
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}

    def pdf(self, file: Path) -> None:
        """The page as it is printed."""
        file.write_bytes(base64.b64decode(self.call("Page.printToPDF", preferCSSPageSize=True)["data"]))

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            more = os.read(self._back.fileno(), 1 << 16)
            assert more, "the browser has ended"
            self._unread += more
        message, _, self._unread = self._unread.partition(b"\0")
        return json.loads(message)

    def _note(self, message: dict[str, Any]) -> None:
        self._seen.append(message)
        method, params = message.get("method"), message.get("params", {})
        if method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.problems.append(f"console: {params['args']}")
        elif method == "Runtime.exceptionThrown":
            self.problems.append(f"exception: {params['exceptionDetails']}")
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.problems.append(f"log: {params['entry']['text']}")
        elif method == "Network.requestWillBeSent" and not params["request"]["url"].startswith(self._allowed):
            self.problems.append(f"network: {params['request']['url']}")


@contextlib.contextmanager
def browser(profile: Path, site: str | None = None) -> Iterator[Browser]:
    """A headless browser with a profile of its own, that reaches nothing, or only `site` (`http://127.0.0.1:PORT/`)."""
    found = chromium()
    assert found is not None
    (low_in, ours_out), (ours_in, low_out) = os.pipe(), os.pipe()
    # Above 3 and 4, where the browser looks for its pipe: one may not be put in the other's place.
    theirs_in, theirs_out = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (low_in, low_out))
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe"]
    flags += ["--no-first-run", "--disable-background-networking", f"--user-data-dir={profile}"]
    flags += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]

    def as_three_and_four() -> None:
        os.dup2(theirs_in, 3)
        os.dup2(theirs_out, 4)

    process = subprocess.Popen(
        [found, *flags, "about:blank"], preexec_fn=as_three_and_four, close_fds=False, stderr=subprocess.DEVNULL
    )
    for end in (low_in, low_out, theirs_in, theirs_out):
        os.close(end)
    try:
        shown = Browser(ours_out, ours_in, site)
        shown.start()
        yield shown
    finally:
        process.kill()
        process.wait()
