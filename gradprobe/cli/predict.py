"""`gradprobe predict`: theory needs neither a server nor training."""

import json as json_module
import math
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from gradprobe.cli import options
from gradprobe.cli.layers import shown_rows
from gradprobe.cli.session import Session, session_of
from gradprobe.cli.specfile import build, validated
from gradprobe.cli.wording import scientific
from gradprobe.theory import Prediction
from gradprobe.theory import predict as predicted

_PHASES = {
    "ordered": "ordered: gradients vanish with depth",
    "critical": "critical: gradients keep their size",
    "chaotic": "chaotic: gradients explode with depth",
}

_LEGEND = """\
  χ: the factor on ‖δ‖² from a layer to the one before it, χ₁ once q has settled at q*; ξ: layers for an e-fold of ‖δ‖².
  q: variance of a layer's outputs z before the activation; σ_w²: fan-in × variance of the weights.
  δ = ∂L/∂z of one sample; rms: of one element; null band: what chance alone does to ‖δ‖."""


def predict(  # noqa: PLR0913 - each is an option of the command line
    context: typer.Context,
    *,
    spec_file: options.SpecFile = None,
    activation: options.Activation = None,
    initialization: options.Initialization = None,
    depth: options.Depth = None,
    width: options.Width = None,
    set_: options.Fields = None,
    json: Annotated[bool, typer.Option("--json", help="Print the document.")] = False,
) -> None:
    """Say what theory expects of a network before it is trained: phase, depth limit, δ layer by layer."""
    given = {"activation": activation, "initialization": initialization, "depth": depth, "width": width}
    spec = validated(build(spec_file, given, (), set_ or ()))
    session, found = session_of(context), predicted(spec)
    if json:
        session.print_json(json_module.dumps(found.document(), indent=2))
    else:
        print_prediction(session, found)


def print_prediction(session: Session, found: Prediction) -> None:
    """The phase and its numbers, then the profile."""
    session.out.print(Text(_PHASES[found.phase], style="bold"))
    depth = len(found.layers)
    limit = "none" if math.isinf(found.depth_limit) else f"{found.depth_limit:.1f} layers; this network has {depth}"
    gain = "–" if found.critical_gain is None else f"{found.critical_gain:.4g} × these weights"
    for heading, text in (
        ("χ₁", f"{found.chi:.4g}   ξ {_number(found.xi, 3)} layers   q* {_number(found.q, 4)}"),
        ("depth limit", limit),
        ("critical gain", gain),
        ("isometry", _isometry(found.singular_value_spread)),
        ("first loss", f"{found.initial_loss:.3f}"),
    ):
        session.out.print(Text(f"  {heading:<15}{text}"))
    session.out.print(_table(found))
    session.out.print(Text(_LEGEND, style="dim"))
    for note in found.notes:
        session.out.print(Text(f"  {note}", style="dim"))


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}g}".replace("inf", "∞")


def _isometry(spread: float | None) -> str:
    if spread is None:
        return "–"
    return f"a layer spreads squared singular values by {spread:.3g} (0: every direction keeps its length)"


def _table(found: Prediction) -> Table:
    table = Table(box=None, header_style="dim")
    table.add_column("layer")
    for heading in ("σ_w²", "q", "χ", "‖δ‖ ÷ last", "null band", "δ rms", "∂L/∂W rms"):
        table.add_column(heading, justify="right")
    for index in shown_rows(len(found.layers)):
        if index is None:
            table.add_row("⋮")
            continue
        layer = found.layers[index]
        table.add_row(
            layer.name, f"{layer.weight_scale:.3g}", f"{layer.q:.3g}", f"{layer.chi:.3g}",
            scientific(math.exp(layer.log_delta_ratio / 2.0)), f"× {math.exp(layer.null_band / 2.0):.2f}",
            scientific(layer.delta_rms), scientific(layer.weight_gradient_rms),
        )  # fmt: skip
    return table
