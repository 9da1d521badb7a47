"""`python -m worker.data`: fetch data sets ahead of the first experiment."""

import logging
from enum import StrEnum
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console

from gradprobe.errors import GradprobeError
from gradprobe.settings import Settings
from worker.data.cache import obtain
from worker.data.mnist import MANIFESTS
from worker.data.sources import sources_of

_output = Console()
_errors = Console(stderr=True)


class Name(StrEnum):
    """The data sets that have files."""

    MNIST = "mnist"
    FASHION_MNIST = "fashion_mnist"


class _LinesOnConsole(logging.Handler):
    """Which source served what, a line each, above the spinner."""

    def emit(self, record: logging.LogRecord) -> None:
        _output.print(self.format(record), markup=False, highlight=False, soft_wrap=True)


def prefetch(
    datasets: Annotated[list[Name] | None, typer.Argument(help="The data sets; mnist where none is named.")] = None,
) -> None:
    """Fetch and verify data sets, so that no experiment waits for them or fails without them."""
    logger = logging.getLogger("worker.data")
    logger.addHandler(_LinesOnConsole())
    logger.setLevel(logging.INFO)
    try:
        settings = Settings()
        for name in dict.fromkeys(datasets or [Name.MNIST]):
            _prefetch(name, settings)
    except (GradprobeError, ValidationError, OSError) as error:
        _errors.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None


def _prefetch(name: Name, settings: Settings) -> None:
    manifest = MANIFESTS[name]
    with _output.status(f"Fetching {name} …"):
        contents = obtain(manifest, settings.dataset_cache, sources_of(manifest, settings))
    total = sum(len(content) for content in contents.values())
    _output.print(
        f"{name}: {len(contents)} files, {total:,} bytes, verified, in {settings.dataset_cache / name}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    typer.run(prefetch)
