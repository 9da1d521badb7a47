"""The dashboard's pictures in the documents: `make screenshots`, or `python -m tests.acceptance.screenshots DIRECTORY`.

Trains the networks that are to be seen, on a stack of its own, then takes every view, light and dark, wide and narrow.
"""

import argparse
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from playwright.sync_api import Browser

from gradprobe import Client
from gradprobe.embedded import Stack
from gradprobe.settings import Settings
from tests.acceptance.browser import launched, watched

_HE: Final = "he_normal"
_COURSE: Final = {"course": "dl-101"}
SPECS: Final[list[dict[str, Any]]] = [
    {"name": "sigmoid baseline", "tags": _COURSE | {"arm": "control"}},
    {"name": "ReLU, He", "tags": _COURSE, "network": {"activation": "relu", "initialization": _HE, "width": 32}},
    {"name": "batch normalization", "tags": _COURSE, "network": {"normalization": "batch", "width": 32}},
    {"name": "tanh, 20 layers", "network": {"depth": 20, "width": 16, "activation": "tanh"}},
    {
        "name": "ReLU, gain 2.5",
        "network": {"depth": 20, "width": 64, "activation": "relu", "initialization": {"name": _HE, "gain": 2.5}},
        "training": {"iterations": 600},
    },
    {
        "name": "a hundred layers",
        "network": {"depth": 100, "width": 24, "activation": "relu", "initialization": _HE},
        "optimizer": {"name": "sgd", "learning_rate": 0.001},
        "training": {"iterations": 500},
    },
]
SWEEP: Final[dict[str, Any]] = {
    "/network/activation": ["sigmoid", "tanh", "relu", "gelu"],
    "/network/depth": [4, 8, 16, 32],
}
LIVE: Final = {"name": "sigmoid, a long run", "training": {"iterations": 400_000}}
WIDE, NARROW = 1280, 390
#: Pictures of what is longer end here, so that they stay small.
_TALLEST: Final = 1900
_SETTLING_MILLISECONDS: Final = 1500


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Take the documents' pictures of the dashboard.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--only", default="", help="those pictures whose names begin so")
    arguments = parser.parse_args()
    directory: Path = arguments.directory
    directory.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as data, Stack(_settings(Path(data))) as stack, Client(stack.url) as client:
        made = [client.create(spec).id for spec in SPECS]
        for identifier in made:
            client.wait(identifier, timeout=600)
        sweep = client.sweep(SWEEP, base={"network": {"width": 32}, "training": {"iterations": 300}}, name="depth")
        client.wait_sweep(sweep.id)
        live = client.create(LIVE).id
        with launched() as browser:
            looks = product(views_of(made, sweep.id).items(), ("light", "dark"), (("wide", WIDE), ("narrow", NARROW)))
            shots = [(f"{name}-{size}-{scheme}", view, scheme, width) for (name, view), scheme, (size, width) in looks]
            shots.append(("hundred-layers", f"/experiments/{made[5]}", "light", WIDE))
            for name, view, scheme, width in shots:
                if name.startswith(arguments.only):
                    path = _picture(browser, stack.url, view, directory / f"{name}.png", (scheme, width))
                    sys.stdout.write(f"{path} {path.stat().st_size // 1024} KiB\n")
        client.cancel(live)


def _settings(data: Path) -> Settings:
    return Settings(data_directory=data, datasets_directory=Settings().dataset_cache, flush_seconds=0.5)


def views_of(made: Sequence[str], sweep: str) -> dict[str, str]:
    """Every view by its picture's name."""
    return {
        "list": "/",
        "experiment": f"/experiments/{made[0]}",
        "compare": f"/compare?ids={','.join(made[:5])}",
        "sweep": f"/sweeps/{sweep}",
        "form": "/new",
    }


def _picture(browser: Browser, url: str, view: str, path: Path, look: tuple[Any, int]) -> Path:
    scheme, width = look
    with watched(browser, url, color_scheme=scheme, viewport={"width": width, "height": 900}) as dashboard:
        page = dashboard.open(view)
        page.wait_for_timeout(_SETTLING_MILLISECONDS)
        # As tall as the page, so that what is drawn once it is seen is drawn.
        height = min(int(page.evaluate("document.documentElement.scrollHeight")), _TALLEST)
        page.set_viewport_size({"width": width, "height": max(height, 600)})
        page.wait_for_timeout(2 * _SETTLING_MILLISECONDS)
        page.screenshot(path=path)
    return path


if __name__ == "__main__":
    main()
