"""Numbers, times and specs as people read them."""

import math
import os
import shutil
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.text import Text

from gradprobe import sentences
from gradprobe.resources import Experiment
from gradprobe.state import Status

_COLOURS = {
    Status.QUEUED: "yellow",
    Status.RUNNING: "cyan",
    Status.SUCCEEDED: "green",
    Status.FAILED: "red",
    Status.CANCELLED: "magenta",
}
_AGES = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
NOTHING = sentences.NOTHING
_NOW = "now"
one_line, amount = sentences.one_line, sentences.amount


def status_text(status: Status) -> Text:
    """The status in its colour."""
    return Text(status.value, style=_COLOURS[status])


def scientific(value: float | None) -> str:
    """Three significant digits: `1.23e-05`."""
    if value is None or math.isnan(value):
        return NOTHING
    return f"{value:.2e}" if value else "0"


def fixed(value: float | None, digits: int = 3) -> str:
    """A loss, or a dash."""
    return NOTHING if value is None or math.isnan(value) else f"{value:.{digits}f}"


def percent(share: float | None, digits: int = 1) -> str:
    """A share 0…1 as a percentage."""
    return NOTHING if share is None or math.isnan(share) else f"{100 * share:.{digits}f} %"


def ratio(value: float, reference: float) -> str:
    """`value` ÷ `reference`: `1/2,310`, `1`, `4.3`; a dash where it has no meaning."""
    if not (math.isfinite(value) and math.isfinite(reference)) or reference <= 0 or value < 0:
        return NOTHING
    if value == 0:
        return "0"
    quotient = value / reference
    if quotient >= 1:
        return amount(quotient)
    inverse = amount(1 / quotient)
    return inverse if inverse == "1" else f"1/{inverse}"


def age(moment: datetime) -> str:
    """How long ago, in its largest unit."""
    seconds = max(0.0, (datetime.now(UTC) - moment).total_seconds())
    for length, unit in _AGES:
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return _NOW


def since(moment: datetime) -> str:
    """`age` within a sentence: `3 min ago`, `just now`."""
    past = age(moment)
    return f"just {past}" if past == _NOW else f"{past} ago"


def named(value: Any) -> str:
    """The name of something given as an object or as a bare name, with its parameters."""
    if not isinstance(value, Mapping):
        return str(value)
    rest = ", ".join(f"{key} {item}" for key, item in value.items() if key not in ("name", "bias"))
    name = str(value.get("name", NOTHING))
    return f"{name} ({rest})" if rest else name


def network(spec: Mapping[str, Any]) -> str:
    """`sigmoid × 6 × 10`: activation, depth, width."""
    net = spec.get("network", {})
    if net.get("kind") == "watched":
        return f"{net.get('module') or 'watched'} × {len(net.get('measured', ()))}"
    activation = net.get("activation", NOTHING)
    name = activation.get("name", NOTHING) if isinstance(activation, Mapping) else activation
    return f"{name} × {net.get('depth', NOTHING)} × {net.get('width', NOTHING)}"


def describe(spec: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The spec in a few lines, (heading, text)."""
    net, optimizer = spec.get("network", {}), spec.get("optimizer", {})
    training, dataset = spec.get("training", {}), spec.get("dataset", {})
    if net.get("kind") == "watched":
        return [
            ("loop", f"{net.get('module') or 'a module'}, {len(net.get('measured', ()))} layers measured"),
            ("training", f"{optimizer.get('name')}, learning rate {optimizer.get('learning_rate')}, "
             f"batches of {training.get('batch_size')}, {training.get('precision')}"),
            ("theory", net.get("unknown") or "knows this network"),
        ]  # fmt: skip
    return [
        (
            "network",
            f"{net.get('kind', 'mlp')}, {net.get('depth')} layers × {net.get('width')} units, "
            f"{named(net.get('activation'))}, {named(net.get('initialization'))}",
        ),
        (
            "training",
            f"{optimizer.get('name')}, learning rate {optimizer.get('learning_rate')}, "
            f"{training.get('iterations', 0):,} iterations of {training.get('batch_size')}, "
            f"seed {training.get('seed')}, device {training.get('device')}",
        ),
        ("data", f"{dataset.get('name')}, {dataset.get('normalization')}"),
    ]


def progress(experiment: Experiment) -> str:
    """`1,200 / 2,500 (48 %)`."""
    done, of = experiment.progress.iteration, experiment.progress.iterations
    return f"{done:,} / {of:,} ({100 * done // of} %)"


def outcome(experiment: Experiment) -> str | None:
    """What training came to, in one line; None before it has."""
    result = experiment.result
    if result is None:
        return None
    return (
        f"loss {fixed(result.final_loss)} · accuracy {percent(result.train_accuracy)} on the training set, "
        f"{percent(result.test_accuracy)} on the test set · {result.seconds:.1f} s "
        f"({result.iterations_per_second:,.0f} iterations/s)"
    )


def commands(*lines: str) -> list[str]:
    """Lines to type next, with the one before them that a shell needs which does not find `gradprobe` yet."""
    if shutil.which("gradprobe") is not None:
        return list(lines)
    activate = Path(sys.prefix) / "bin" / "activate"
    return [f". {os.path.relpath(activate)}", *lines] if activate.exists() else list(lines)
