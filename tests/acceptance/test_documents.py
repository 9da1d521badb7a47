"""What the documents tell their readers to type works and prints what they say; the site is built of them."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gradprobe.embedded import Stack
from tests.acceptance.browser import launched
from tests.acceptance.documents import Block, Reader, blocks, differs, environment

ROOT = Path(__file__).parents[2]
#: Pages that are run with every test; `make documents` runs the others as well.
SHORT = ("README.md", "docs/explanation/delta.md")
#: What begins with one of these isn't run, on any page.
PROGRAMS = {
    "make": "it is run by CI itself, or takes minutes",
    "docker": "needs a Docker engine: make test-compose",
    "pip": "changes the environment",
    "python -m benchmarks": "takes minutes",
}


def pages() -> list[str]:
    """README and every page of the site, decisions aside."""
    found = sorted((ROOT / "docs").rglob("*.md"))
    return ["README.md", *(str(page.relative_to(ROOT)) for page in found if page.parent.name != "decisions")]


def reason(block: Block) -> str | None:
    """Why a block is not run."""
    begins = [why for text, why in PROGRAMS.items() if block.text.startswith(text)]
    return block.reason or next(iter(begins), None)


PAGES = [page for page in pages() if any(not reason(block) for block in blocks(ROOT / page))]


@pytest.fixture
def reader(stack: Stack, tmp_path: Path) -> Iterator[Reader]:
    """Somebody with an empty folder, beside a stack that runs."""
    (tmp_path / "figures").mkdir()
    with environment(stack.url):
        reading = Reader(stack, tmp_path)
        yield reading
        reading.leave()


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[] if page in SHORT else [pytest.mark.documents]) for page in PAGES]
)
def test_every_block_runs_and_prints_what_the_page_says(page: str, reader: Reader) -> None:
    for block in blocks(ROOT / page):
        if reason(block) is None:
            where = f"{page}:{block.line}"
            try:
                printed = reader.type(block)
            except Exception as error:
                raise AssertionError(f"{where}: {error}") from error
            if block.output:
                assert (found := differs(printed, block.output)) is None, f"{where}: {found}"


def test_blocks_that_are_not_run_are_few_and_say_why() -> None:
    every = [(page, block) for page in pages() for block in blocks(ROOT / page)]
    left_out = [(page, block.line) for page, block in every if reason(block)]
    assert all(reason(block) != "" for page, block in every)
    assert len(every) - len(left_out) >= 30
    assert len(left_out) <= 30, f"more blocks than ever are not run: {left_out}"


@pytest.mark.documents
def test_the_site_is_built_without_a_warning_and_asks_no_other_host(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    with launched() as browser:
        page = browser.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        for name in ("index", "tutorial", "reference/http", "reference/client", "reference/command-line"):
            page.goto((tmp_path / "site" / f"{name}.html").as_uri(), wait_until="load")
            assert page.locator("h1").count() == 1
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
