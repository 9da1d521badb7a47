"""Everything about scale in one table: `python -m benchmarks.scale [--only stacks,sweep,…] [--quick]`."""

import argparse
from collections.abc import Callable, Sequence
from functools import partial

from benchmarks.results import Result, Table, perform
from benchmarks.scale import gpu, service, stacks

Part = Callable[[bool], Sequence[Table]]

PARTS: dict[str, Part] = {
    "stacks": lambda quick: stacks.measure(stacks.QUICK if quick else stacks.Effort()),
    "sweep": lambda quick: [service.sweep(_effort(quick))],
    "first": lambda quick: [service.first_statistics(_effort(quick))],
    "tiny": lambda quick: [service.tiny(_effort(quick))],
    "workers": lambda quick: service.by_workers(_effort(quick)),
    "gpu": gpu.tables,
}


def _effort(quick: bool) -> service.Effort:
    return service.QUICK if quick else service.Effort()


def run(parts: Sequence[str], quick: bool) -> Result:
    """These parts, in this order."""
    return Result("scale", [table for name in parts for table in PARTS[name](quick)])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="small and few: shows that it runs, measures nothing")
    arguments = parser.parse_args()
    wanted = arguments.only.split(",")
    for name in wanted:
        if name not in PARTS:
            parser.error(f"there is no part {name!r}; choose from {', '.join(PARTS)}")
    perform(partial(run, wanted), arguments.quick)


if __name__ == "__main__":
    main()
