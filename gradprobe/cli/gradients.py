"""`gradprobe gradients`."""

from enum import StrEnum
from typing import Annotated

import numpy as np
import typer
from rich.table import Table
from rich.text import Text

from gradprobe.cli.bars import histogram_table
from gradprobe.cli.layers import KINDS, TITLES, finite_mean, shown_rows
from gradprobe.cli.session import ID_HELP, Session, resolve, session_of
from gradprobe.cli.wording import NOTHING, scientific
from gradprobe.client import Client, GradientKind, Series
from gradprobe.resources import HistogramDocument, SeriesDocument
from gradprobe.sparkline import scale_caption, scale_of, sparkline

_FIXED_COLUMNS = 64  # what the columns other than the sparkline take


class Of(StrEnum):
    """Which gradient."""

    WEIGHTS = "weights"
    OUTPUTS = "outputs"


def gradients(  # noqa: PLR0913 - each is an option of the command line
    context: typer.Context,
    *,
    experiment: Annotated[str, typer.Argument(help=ID_HELP)],
    of: Annotated[
        Of, typer.Option(help="∂L/∂W of the weights, or δ = ∂L/∂z at the layers' outputs before the activation.")
    ] = Of.WEIGHTS,
    layer: Annotated[list[str] | None, typer.Option(help="Only this layer; repeat it for more.")] = None,
    statistic: Annotated[
        list[str] | None, typer.Option(help="mean_abs, mean, std, norm, max_abs, …; repeat it for more.")
    ] = None,
    start: Annotated[int | None, typer.Option(min=0, help="From this iteration on.")] = None,
    stop: Annotated[int | None, typer.Option(min=0, help="Up to the iteration before this one.")] = None,
    histogram: Annotated[
        bool, typer.Option("--histogram", help="How one layer's gradients are distributed, over all those steps.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the document.")] = False,
) -> None:
    """Show every layer's gradient statistics over the run, or how they are distributed."""
    session = session_of(context)
    kind: GradientKind = "weights" if of is Of.WEIGHTS else "outputs"
    with session.connect() as client:
        found = resolve(client, experiment)
        query = {"of": kind, "layers": ",".join(layer or ()) or None, "start": start, "stop": stop}
        if histogram and json:
            document = client.document(HistogramDocument, found, "gradients/histograms", query)
            session.print_json(document.model_dump_json())
        elif json:
            query["statistics"] = ",".join(statistic or ()) or None
            session.print_json(client.document(SeriesDocument, found, "gradients", query).model_dump_json())
        elif histogram:
            chosen = layer or [str(client.gradients(found, kind, stop=1).names[0])]
            _print_histograms(session, client, found, kind, (chosen, start, stop))
        else:
            wanted = statistic or ["mean_abs"]
            series = client.gradients(found, kind, layers=layer, statistics=wanted, start=start, stop=stop)
            _print_series(session, series, kind, wanted)


def _print_histograms(
    session: Session,
    client: Client,
    experiment_id: str,
    kind: GradientKind,
    selection: tuple[list[str], int | None, int | None],
) -> None:
    layers, start, stop = selection
    histograms = client.histograms(experiment_id, kind, layers=layers, start=start, stop=stop)
    if histograms.steps.size == 0:
        session.out.print("No histogram was recorded in these iterations")
        return
    for layer in histograms.layers:
        symbol = "∂L/∂W" if kind == "weights" else "δ"
        title = f"{layer.name}: {symbol}, steps {histograms.steps[0]} … {histograms.steps[-1]}"
        session.out.print(histogram_table(layer, title, session.out.width))
        session.out.print()


def _print_series(session: Session, series: Series, kind: GradientKind, statistics: list[str]) -> None:
    if series.steps.size == 0:
        session.out.print("Nothing was recorded in these iterations")
        return
    for statistic in statistics:
        title = TITLES[kind] if statistic == "mean_abs" else f"{statistic} of {KINDS[kind]}"
        session.out.print(_statistic_table(series, statistic, title, session.out.width))
        session.out.print()


def _statistic_table(series: Series, statistic: str, title: str, width: int) -> Table:
    matrix = series.matrix(statistic)
    scale = scale_of(np.abs(matrix))
    table = Table(
        title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0), header_style="dim",
        caption=f"{series.steps.size:,} recorded steps; {scale_caption(scale)}", caption_justify="left",
    )  # fmt: skip
    table.add_column("layer")
    for heading in (f"step {series.steps[0]}", f"step {series.steps[-1]}", "smallest", "mean", "largest"):
        table.add_column(heading, justify="right")
    table.add_column("over these steps", no_wrap=True)
    for index in shown_rows(len(series.layers)):
        if index is None:
            table.add_row("⋮")
            continue
        values = matrix[index]
        numbers = values[~np.isnan(values)]
        low, high = (numbers.min(), numbers.max()) if numbers.size else (np.nan, np.nan)
        table.add_row(
            series.layers[index].name,
            *(scientific(float(number)) for number in (values[0], values[-1], low, finite_mean(values), high)),
            Text(sparkline(np.abs(values), max(8, width - _FIXED_COLUMNS), scale) or NOTHING, style="cyan"),
        )
    return table
