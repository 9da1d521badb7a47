"""A real browser, found where it is or set up where it is not: `python -m tests.acceptance.browser`."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

#: It asks nothing of anybody by itself, and runs without a screen, as root and in a container.
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
MISSING = (
    "The dashboard's tests need a browser: run `python -m playwright install chromium`, or on Debian as root "
    "`apt-get install chromium`, or put the path of a Chromium or Chrome into $GRADPROBE_TEST_BROWSER."
)
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_DOWNLOAD_SECONDS, _INSTALL_SECONDS = 300, 600


class BrowserMissing(Exception):
    """No browser here; the message says what to install."""


def executable() -> str | None:
    """The path of a browser: the one that is named, Playwright's own, or the system's."""
    if named := os.environ.get("GRADPROBE_TEST_BROWSER"):
        return named
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if Path(own).exists() else next(filter(None, map(shutil.which, _NAMES)), None)


def set_up() -> None:
    """Install one where there is none: Playwright's own, and where that is refused Debian's. Raises BrowserMissing."""
    if executable():
        return
    sys.stdout.write("== a browser for the dashboard's tests\n")
    # Its libraries only once it is there: where the download is refused they would be installed for nothing.
    _tried([sys.executable, "-m", "playwright", "install", "chromium"], _DOWNLOAD_SECONDS)
    if executable():
        _tried([sys.executable, "-m", "playwright", "install-deps", "chromium"], _INSTALL_SECONDS)
    elif shutil.which("apt-get") and os.geteuid() == 0:
        _tried(["apt-get", "update", "-qq"], _INSTALL_SECONDS)
        packages = ["chromium", "fonts-dejavu-core", "fonts-liberation"]
        _tried(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages], _INSTALL_SECONDS)
    if not executable():
        raise BrowserMissing(MISSING)


def _tried(command: list[str], seconds: float) -> None:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        subprocess.run(command, timeout=seconds, env=environment, capture_output=True, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return  # whether it helped is looked at afterwards


@contextmanager
def launched() -> Iterator[Browser]:
    """A browser. Raises BrowserMissing."""
    path = executable()
    if path is None:
        raise BrowserMissing(MISSING)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@dataclass
class Watched:
    """A page of the dashboard, and all that must not happen on it."""

    page: Page
    origin: str
    faults: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)
    #: What Chromium itself reports of refusals that the test asks for.
    expected: str = ""

    def __post_init__(self) -> None:
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.faults.append(f"{error}\n{error.stack}"))
        self.page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))

    def _console(self, message: ConsoleMessage) -> None:
        wanted = self.expected and self.expected in message.text
        if message.type in ("error", "warning") and not wanted:
            self.faults.append(message.text)

    def open(self, fragment: str = "/") -> Page:
        """Go to a view and wait until it stands."""
        self.page.goto(f"{self.origin}/#{fragment}")
        self.page.wait_for_selector("#view h1, #view .state h2")
        return self.page

    def drawn(self, charts: int = 1) -> None:
        """Wait until so many charts are drawn."""
        self.page.wait_for_function(
            "n => document.querySelectorAll('.js-plotly-plot .main-svg').length >= n", arg=charts
        )

    def require_clean(self) -> None:
        """No error on the console, and no request to another host but `data:`, which is none."""
        assert self.faults == []
        assert self.hosts - {""} == {urlsplit(self.origin).netloc}


@contextmanager
def watched(browser: Browser, origin: str, **options: Any) -> Iterator[Watched]:
    """A fresh page, clean at its end."""
    context = browser.new_context(**options)
    context.set_default_timeout(30_000)
    page = Watched(context.new_page(), origin)
    yield page
    page.require_clean()
    context.close()


def violations(page: Page) -> list[str]:
    """What axe calls serious or critical, with the first place where it is."""
    return [
        f"{one['id']}: {one['nodes'][0]['html'][:200]} {one['nodes'][0].get('failureSummary', '')}"
        for one in Axe().run(page).response["violations"]
        if one["impact"] in ("serious", "critical")
    ]


if __name__ == "__main__":
    try:
        set_up()
    except BrowserMissing as error:
        # The tests say so too, and fail; those that need no browser are run all the same.
        sys.stdout.write(f"! {error}\n")
