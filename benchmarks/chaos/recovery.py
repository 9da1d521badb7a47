"""Kill the only worker with SIGKILL, start it again at once: how long until the next new step, how much is redone?

The settings are the defaults: `python -m benchmarks.chaos.recovery --help`.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from benchmarks.chaos.faults import kill_and_start
from gradprobe import Client
from gradprobe.embedded import Stack
from gradprobe.resources import Experiment
from gradprobe.settings import Settings

_LOOK_SECONDS = 0.05
_LONG = {"training": {"iterations": 1_000_000}}


def measure(seconds: float) -> dict[str, float]:
    """Train for so long, kill, wait for the next iteration that was not done before."""
    with tempfile.TemporaryDirectory(prefix="gradprobe-recovery-", ignore_cleanup_errors=True) as directory:
        settings = Settings(data_directory=Path(directory), datasets_directory=Settings().dataset_cache)
        with Stack(settings) as stack, Client(stack.url) as client:
            identifier = client.create(_LONG).id
            while client.get(identifier).progress.iteration == 0:
                time.sleep(_LOOK_SECONDS)
            time.sleep(seconds)
            before = client.get(identifier).progress.iteration
            killed = time.monotonic()
            kill_and_start(next(child for child in stack.children if child.name == "worker"))
            resumed: Experiment | None = None
            while (found := client.get(identifier)).progress.iteration <= before or found.attempt == 1:
                if resumed is None and found.attempt == 2:
                    resumed, claimed = found, time.monotonic() - killed
                time.sleep(_LOOK_SECONDS)
            recovered = time.monotonic() - killed
            if resumed is None:  # it was past the old place before anyone looked
                resumed, claimed = found, recovered
            client.cancel(identifier)
        rate = before / seconds
        return {
            "seconds_to_claim": claimed,
            "seconds_to_next_new_step": recovered,
            "iterations_before": before,
            "iterations_recomputed": max(0, before - resumed.progress.iteration),
            "seconds_recomputed": max(0, before - resumed.progress.iteration) / rate,
            "checkpoint_seconds": settings.checkpoint_seconds,
            "lease_seconds": settings.lease_seconds,
        }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos.recovery", description=__doc__)
    parser.add_argument("--seconds", type=float, default=25.0, help="how long to train before the worker is killed")
    print(json.dumps(measure(parser.parse_args().seconds), indent=2))  # noqa: T201 - it is what was asked for


if __name__ == "__main__":
    main()
