"""Run all benchmarks: `python -m benchmarks [--only overhead,read] [--quick]`."""

import argparse

from benchmarks import archive, blocks, estimates, kernels, listing, load, loop, overhead, read, store, watch
from benchmarks.results import perform

BENCHMARKS = {
    "overhead": overhead.run,
    "watch": watch.run,
    "kernels": kernels.run,
    "loop": loop.run,
    "read": read.run,
    "store": store.run,
    "estimates": estimates.run,
    "listing": listing.run,
    "blocks": blocks.run,
    "archive": archive.run,
    "load": load.run,
}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Every claim, measured against its peer.")
    parser.add_argument("--only", default=",".join(BENCHMARKS), help=f"some of {', '.join(BENCHMARKS)}")
    parser.add_argument("--quick", action="store_true", help="small and few: shows that it runs, measures nothing")
    arguments = parser.parse_args()
    wanted = arguments.only.split(",")
    for name in wanted:
        if name not in BENCHMARKS:
            parser.error(f"there is no benchmark {name!r}; choose from {', '.join(BENCHMARKS)}")
    for name in wanted:
        perform(BENCHMARKS[name], arguments.quick)


if __name__ == "__main__":
    main()
