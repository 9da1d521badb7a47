"""Runs the code blocks of a document against a running stack, one after the other, as its reader would.

Python and shell blocks are run; the blocks of a page share one Python namespace, one folder, and the shell's variables.
What stands behind the language, in the block's info string, is read here and taken away for the site:

    ```sh not-run="needs a Docker engine"     not run, and why
    ```text output                            what the Python block before it prints; its numbers to 1 %
    ```text output="0.2"                      the same, to 20 %: what a whole training comes to differs between machines

In a block, the address of the documents is the stack's, and the id of an experiment or sweep is that of the newest.

`python -m tests.acceptance.documents PAGE` runs a page on a stack of its own, writes what its blocks print into it, and
leaves in its folder what they draw.
"""

import argparse
import contextlib
import io
import math
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from markdown_it import MarkdownIt

from gradprobe import Client
from gradprobe.client import DEFAULT_URL
from gradprobe.embedded import Stack
from gradprobe.settings import Settings

SHELL: Final = ("sh", "bash")
RUN: Final = (*SHELL, "python")
_TOLERANCE: Final = 0.01
_SECONDS: Final = 120.0
_IDENTIFIER: Final = re.compile(r"\b(exp|swp)_[0-9a-z]{26}\b")
_NUMBER: Final = re.compile(r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?(?![\w.]*\w)")


@dataclass
class Block:
    """One fenced block: where it stands, what it says, and what is to be done with it."""

    line: int
    language: str
    options: dict[str, str]
    text: str
    #: What it is to print, and how exactly; None where nothing is said.
    output: "Block | None" = None

    @property
    def reason(self) -> str | None:
        """Why it is not run; None where it is."""
        return self.options.get("not-run")


def blocks(page: Path) -> list[Block]:
    """The blocks of a page that are code to be run, or marked as not to be."""
    found: list[Block] = []
    for token in MarkdownIt().parse(page.read_text("utf-8")):
        if token.type != "fence":
            continue
        assert token.map is not None
        language, *options = shlex.split(token.info) or [""]
        named = dict(option.partition("=")[::2] for option in options)
        block = Block(token.map[0] + 1, language, named, token.content)
        if "output" in named:
            assert found, f"{page}:{block.line}: the output of what?"
            found[-1].output = block
        elif language in RUN:
            found.append(block)
    return found


@dataclass
class Reader:
    """Someone who types a page's blocks, one after the other, in a folder of their own."""

    stack: Stack
    folder: Path
    namespace: dict[str, Any] = field(default_factory=lambda: {"__name__": "__main__"})

    def type(self, block: Block) -> str:
        """Run a block; what it printed. Raises AssertionError where it fails."""
        text = block.text.replace(DEFAULT_URL, self.stack.url)
        text = _IDENTIFIER.sub(lambda match: self._newest(match[1]), text)
        return self._shell(text) if block.language in SHELL else self._python(text, block.line)

    def leave(self) -> None:
        """Close what the blocks opened: a reader's interpreter does so when it ends."""
        for value in self.namespace.values():
            if isinstance(value, Client):
                value.close()

    def _newest(self, kind: str) -> str:
        with Client(self.stack.url) as client:
            if kind == "exp":
                return next(client.list(limit=1)).id
            return next(iter(client.list_sweeps())).id

    def _python(self, text: str, line: int) -> str:
        printed = io.StringIO()
        # As many empty lines before it as in the page, so that a traceback tells the page's own line.
        code = compile("\n" * line + text, "<page>", "exec")
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(printed):
            exec(code, self.namespace)
        return printed.getvalue()

    def _shell(self, text: str) -> str:
        state = self.folder / ".environment"
        script = f"set -euo pipefail\nset -a\n[ ! -e {state} ] || . {state}\n{text}\nexport -p > {state}\n"
        (self.folder / ".curlrc").write_text("fail-with-body\nsilent\nshow-error\n")
        environment = os.environ | {
            "CURL_HOME": str(self.folder),
            "GRADPROBE_DATA_DIRECTORY": str(self.stack.settings.data_directory),
            "GRADPROBE_URL": self.stack.url,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def differs(printed: str, expected: Block) -> str | None:
    """In what the two differ, other than in the last digits of their numbers; None where they don't."""
    tolerance = float(expected.options["output"] or _TOLERANCE)
    words, wanted = _NUMBER.sub("#", printed).split(), _NUMBER.sub("#", expected.text).split()
    if words != wanted:
        return f"printed:\n{printed}\nin the page:\n{expected.text}"
    pairs = zip(_NUMBER.findall(printed), _NUMBER.findall(expected.text), strict=True)
    for number, in_page in pairs:
        if not math.isclose(_value(number), _value(in_page), rel_tol=tolerance):
            return f"{number} is printed, the page has {in_page}; printed:\n{printed}"
    return None


def _value(number: str) -> float:
    return float(number.replace(",", ""))


@contextlib.contextmanager
def environment(url: str) -> Iterator[None]:
    """What the page's Python finds around it: the server's address, and no screen to draw on."""
    before = dict(os.environ)
    os.environ |= {"GRADPROBE_URL": url, "MPLBACKEND": "agg"}
    yield
    os.environ.clear()
    os.environ.update(before)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Run a page, write what it prints into it, keep what it draws.")
    parser.add_argument("page", type=Path)
    page: Path = parser.parse_args().page.resolve()
    lines = page.read_text("utf-8").splitlines(keepends=True)
    with TemporaryDirectory() as data:
        settings = Settings(data_directory=Path(data), datasets_directory=Settings().dataset_cache)
        with Stack(settings) as stack, environment(stack.url):
            reader = Reader(stack, page.parent)
            run = [(block, reader.type(block)) for block in blocks(page) if not block.reason]
            reader.leave()
    for block, printed in reversed(run):
        if block.output:
            start = block.output.line
            lines[start : start + block.output.text.count("\n")] = printed.splitlines(keepends=True)
    page.write_text("".join(lines), "utf-8")
    for leftover in (".environment", ".curlrc"):
        (page.parent / leftover).unlink(missing_ok=True)


if __name__ == "__main__":
    main()
