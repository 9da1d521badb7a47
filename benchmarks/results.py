"""What a benchmark found: rows with goals, as a table on the terminal and as JSON in `benchmarks/results/`."""

import argparse
import json
import math
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import psutil
import torch
from rich.console import Console
from rich.table import Table as RichTable

DIRECTORY = Path(__file__).with_name("results")
_PACKAGES = ("torch", "numpy", "numba", "tensorboard", "wandb", "mlflow")

_NARROWEST = 150

Figure = float | str | None


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound on one of a row's figures."""

    figure: str
    sign: Literal["≤", "≥", "<", ">"]
    limit: float
    unit: str = "×"

    def __str__(self) -> str:
        return f"{self.sign} {self.limit:g}{'' if self.unit == '×' else ' '}{self.unit}"

    def met(self, value: Figure) -> bool | None:
        """Whether it holds; None where there is no number."""
        if not isinstance(value, float | int):
            return None
        return {
            "≤": value <= self.limit,
            "≥": value >= self.limit,
            "<": value < self.limit,
            ">": value > self.limit,
        }[self.sign]


@dataclass(frozen=True, slots=True)
class Row:
    """One subject's figures. A subject that could not be measured has none, and a note that says why."""

    subject: str
    figures: dict[str, Figure] = field(default_factory=dict)
    goals: Sequence[Goal] = ()
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether all goals hold; None where there is no goal, or nothing to hold it against."""
        verdicts = [goal.met(self.figures.get(goal.figure)) for goal in self.goals]
        return None if not verdicts or None in verdicts else all(verdicts)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under one title."""

    title: str
    rows: Sequence[Row]


@dataclass(frozen=True, slots=True)
class Result:
    """What one benchmark found."""

    name: str
    tables: Sequence[Table]


def document(result: Result, quick: bool, loads: tuple[float, float]) -> dict[str, Any]:
    """As JSON; `loads` are the machine's load averages before and after."""
    return {
        "name": result.name,
        "command": f"python -m benchmarks.{result.name}" + (" --quick" if quick else ""),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "load_before": round(loads[0], 2),
        "load_after": round(loads[1], 2),
        "machine": machine(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "tables": [
            {
                "title": table.title,
                "rows": [
                    {
                        "subject": row.subject,
                        "figures": row.figures,
                        "goal": " and ".join(dict.fromkeys(map(str, row.goals))),
                        "met": None if quick else row.met,
                        "note": row.note,
                    }
                    for row in table.rows
                ],
            }
            for table in result.tables
        ],
    }


def machine() -> dict[str, Any]:
    """Where it ran."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gibibytes": round(psutil.virtual_memory().total / 2**30),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def show(found: dict[str, Any], console: Console) -> None:
    """The tables, on a terminal."""
    for table in found["tables"]:
        rich = RichTable(title=table["title"], title_justify="left")
        columns, lines = cells(table)
        for position, column in enumerate(columns):
            rich.add_column(column, justify="left" if position == 0 else "right", no_wrap=position == 0)
        for line in lines:
            rich.add_row(*line)
        console.print(rich)


def cells(table: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """A table's columns and its lines as text."""
    rows = table["rows"]
    figures = list(dict.fromkeys(name for row in rows for name in row["figures"]))
    shown = [("goal", any(row["goal"] for row in rows)), ("note", any(row["note"] for row in rows))]
    columns = ["", *figures, *(["goal", "met"] if shown[0][1] else []), *(["note"] if shown[1][1] else [])]
    verdict = {True: "met", False: "MISSED", None: ""}
    lines = []
    for row in rows:
        line = [row["subject"], *(text(row["figures"].get(name)) for name in figures)]
        line += [row["goal"], verdict[row["met"]]] if shown[0][1] else []
        lines.append(line + ([row["note"]] if shown[1][1] else []))
    return columns, lines


def text(figure: Figure) -> str:
    """A figure to three significant digits, more where it is a larger whole number."""
    if figure is None:
        return ""
    if isinstance(figure, str):
        return figure
    if isinstance(figure, int) or abs(figure) >= 100 or figure == 0:
        return f"{figure:,.0f}"
    return f"{figure:.{2 - math.floor(math.log10(abs(figure)))}f}"


def command(run: Callable[[bool], Result], arguments: Sequence[str] | None = None) -> None:
    """The command line of one benchmark."""
    parser = argparse.ArgumentParser(description=sys.modules[run.__module__].__doc__)
    parser.add_argument("--quick", action="store_true", help="small and few: shows that it runs, measures nothing")
    perform(run, parser.parse_args(arguments).quick)


def perform(run: Callable[[bool], Result], quick: bool) -> dict[str, Any]:
    """Run a benchmark, show what it found and keep it as JSON."""
    torch.set_num_threads(1)
    before = os.getloadavg()[0]
    result = run(quick)
    found = document(result, quick, (before, os.getloadavg()[0]))
    console = Console()
    console.width = max(console.width, _NARROWEST)
    show(found, console)
    DIRECTORY.mkdir(exist_ok=True)
    path = DIRECTORY / f"{result.name}{'.quick' if quick else ''}.json"
    path.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    console.print(f"[dim]{path}[/dim]")
    return found


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
