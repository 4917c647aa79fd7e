"""A real Chromium, headless, that looks at the page of a real server.

What is not installed everywhere is the browser: without it these tests are skipped. The browser ends with
each module, because no other event loop can run in a process while Playwright's runs.
"""

import io
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, sync_playwright

from tests.support.images import photo
from tests.support.running_server import RunningServer
from vipsrv import Client, VipsrvError

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

WAIT_MS = 60_000
"""For whatever the page will show; a test that passes hardly waits."""


class Watched:
    """A page, and what it must never do: errors of its scripts, violations of its policy, requests to others.

    ``forgiven`` are words of messages that the test expects.
    """

    def __init__(self, context: BrowserContext, origin: str) -> None:
        self.page = context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.origin = origin
        self.forgiven: list[str] = []
        self._faults: list[str] = []
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self._faults.append(f"error: {error}"))
        self.page.on("request", self._request)

    def open(self) -> Page:
        """Open the page and wait until the figures come."""
        self.page.goto(f"{self.origin}/")
        self.page.locator("body[data-state=live]").wait_for()
        return self.page

    @property
    def faults(self) -> list[str]:
        return [fault for fault in self._faults if not any(word in fault for word in self.forgiven)]

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self._faults.append(f"console: {message.text}")

    def _request(self, request: Request) -> None:
        if not request.url.startswith((f"{self.origin}/", "blob:", "data:")):
            self._faults.append(f"a request to {request.url}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        # The tests run as root in containers, where Chromium's own sandbox does not start.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(browser: Browser) -> Iterator[RunningServer]:  # noqa: ARG001 - no server where there is no browser
    with RunningServer("--ops-listen", "127.0.0.1:0", "--workers", "2") as server:
        yield server


@pytest.fixture
def watched(browser: Browser, server: RunningServer) -> Iterator[Watched]:
    with watching(browser, server.ops) as watched:
        yield watched


@contextmanager
def watching(browser: Browser, origin: str, **options: object) -> Iterator[Watched]:
    """Open a page in a fresh context; at the end it must have done nothing that it must not do."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})  # type: ignore[arg-type]
    try:
        watched = Watched(context, origin)
        yield watched
        assert watched.faults == []
    finally:
        context.close()


@pytest.fixture(scope="module")
def image() -> bytes:
    """A JPEG of 1200 × 800 pixels."""
    file = io.BytesIO()
    photo(1200, 800).save(file, "JPEG", quality=95)
    return file.getvalue()


@contextmanager
def load(server: RunningServer, image: bytes) -> Iterator[None]:
    """Let a client send requests, one after another, some of which are refused."""
    stop = threading.Event()

    def send() -> None:
        number = 0
        with Client(host=server.host, port=server.port) as client:
            while not stop.is_set():
                number += 1
                try:
                    client.resize(b"no image" if number % 10 == 0 else image, width=100)
                except VipsrvError:
                    continue

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


CHANGED = """([selector, attribute, old, milliseconds]) => new Promise((resolve, reject) => {
  const element = document.querySelector(selector);
  const end = Date.now() + milliseconds;
  const look = () => {
    const value = element.getAttribute(attribute);
    if (value !== old) resolve(value);
    else if (Date.now() > end) reject(new Error("it has stopped"));
    else setTimeout(look, 50);
  };
  look();
})"""
"""Waits for the next value of an attribute. It is passed by the debugger, so the page's policy allows it."""


def changes(
    page: Page, selector: str, attribute: str, number: int, *, milliseconds: int = 20_000
) -> list[str]:
    """Return so many values that an attribute has one after another.

    Raises an error if it does not change for ``milliseconds``.
    """
    found = [page.locator(selector).first.get_attribute(attribute) or ""]
    while len(found) < number:
        found.append(page.evaluate(CHANGED, [selector, attribute, found[-1], milliseconds]))
    return found
