"""Write results into a document, between its two markers: `python -m benchmarks.report docs/benchmarks.md`, or those of
one benchmark, `python -m benchmarks.report docs/scaling.md scale`."""

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.results import DIRECTORY, cells

BEGIN, END = "<!-- results: begin, written by `python -m benchmarks.report` -->", "<!-- results: end -->"
_NAMES = ("overhead", "watch", "kernels", "loop", "read", "store", "listing", "blocks", "load")


def markdown(found: dict[str, Any]) -> str:
    """One benchmark's tables, where and when they were measured."""
    machine = found["machine"]
    where = f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gibibytes']} GiB"
    where += f", {machine['gpu']}" if machine["gpu"] else ""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items() if version)
    lines = [
        f"### `{found['command']}`",
        "",
        f"{found['date']} · {where} · Python {machine['python']}, {versions} · "
        f"load average {found['load_before']} before, {found['load_after']} after",
    ]
    for table in found["tables"]:
        lines += ["", f"**{table['title']}**", "", *_table(table)]
    return "\n".join(lines)


def write_into(document: Path, text: str) -> None:
    """Replace what is between the markers; raises ValueError where they are not."""
    before, begin, rest = document.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{document} has no lines {BEGIN!r} and {END!r}")
    document.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def _table(table: dict[str, Any]) -> list[str]:
    columns, lines = cells(table)
    rule = ["---", *["---:"] * (len(columns) - 1)]
    return [f"| {' | '.join(line)} |" for line in (columns, rule, *lines)]


def main() -> None:
    """The command line; without a document the tables go to standard output."""
    paths = [DIRECTORY / f"{name}.json" for name in sys.argv[2:] or _NAMES]
    found = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]
    if not found:
        sys.exit("There are no results yet; run: make bench")
    text = "\n\n".join(map(markdown, found))
    if len(sys.argv) > 1:
        write_into(Path(sys.argv[1]), text)
    else:
        sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
