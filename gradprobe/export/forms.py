"""The forms of an export: what each needs, and how it is made."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final, Literal

from gradprobe.errors import ExportUnavailable
from gradprobe.export import separated
from gradprobe.export.contents import Contents, Wish
from gradprobe.export.tables import TableName, table

Form = Literal["csv", "parquet", "arrow", "tensorboard", "png", "html"]

_SHOWN: Final = 200  # histograms of a tensor in TensorBoard, which itself shows 50


@dataclass(frozen=True, slots=True)
class Kind:
    """One form: its media type, the end of its file's name, what makes it, which libraries and what of the store."""

    media_type: str
    suffix: str
    make: Callable[[Contents, TableName], Iterable[bytes]]
    needs: tuple[str, ...] = ()
    tabular: bool = False
    histograms: int = 0
    diagnosis: bool = False

    def wish(self, start: int, stop: int | None, name: TableName) -> Wish:
        """What has to be read for it."""
        histograms = None if self.tabular and name == "histograms" else self.histograms
        return Wish(start, stop, histograms, self.diagnosis)


def _csv(contents: Contents, name: TableName) -> Iterable[bytes]:
    return separated.lines(table(contents, name))


def _parquet(contents: Contents, name: TableName) -> Iterable[bytes]:
    from gradprobe.export import arrow  # noqa: PLC0415 - only where it is installed

    return [arrow.to_parquet(contents, name)]


def _arrow(contents: Contents, name: TableName) -> Iterable[bytes]:
    from gradprobe.export import arrow  # noqa: PLC0415 - only where it is installed

    return [arrow.to_arrow(contents, name)]


def _tensorboard(contents: Contents, _: TableName) -> Iterable[bytes]:
    from gradprobe.export import tensorboard  # noqa: PLC0415 - only where it is installed

    return tensorboard.records(contents)


def _png(contents: Contents, _: TableName) -> Iterable[bytes]:
    from gradprobe.export import figures  # noqa: PLC0415 - only where it is installed

    return [figures.png(figures.gradient_flow(contents))]


def _html(contents: Contents, _: TableName) -> Iterable[bytes]:
    from gradprobe.export import report  # noqa: PLC0415 - only where it is installed

    return [report.page(contents)]


KINDS: Final[dict[Form, Kind]] = {
    "csv": Kind("text/csv; charset=utf-8", "csv", _csv, tabular=True),
    "parquet": Kind("application/vnd.apache.parquet", "parquet", _parquet, ("pyarrow",), tabular=True),
    "arrow": Kind("application/vnd.apache.arrow.file", "arrow", _arrow, ("pyarrow",), tabular=True),
    "tensorboard": Kind(
        "application/octet-stream", "gradprobe", _tensorboard, ("tensorboard", "google_crc32c"), histograms=_SHOWN
    ),
    "png": Kind("image/png", "png", _png, ("matplotlib",), diagnosis=True),
    "html": Kind("text/html; charset=utf-8", "html", _html, ("matplotlib",), diagnosis=True),
}


def file_name(contents: Contents, form: Form, name: TableName) -> str:
    """How the file is called: TensorBoard only opens what has `tfevents` in its name."""
    record, kind = contents.record, KINDS[form]
    if form == "tensorboard":
        return f"events.out.tfevents.{int(record.created_at)}.{record.id}.{kind.suffix}"
    return f"{record.id}-{name}.{kind.suffix}" if kind.tabular else f"{record.id}.{kind.suffix}"


def require(form: Form) -> None:
    """Raises ExportUnavailable where a library that the form needs is not installed."""
    missing = [name for name in KINDS[form].needs if find_spec(name) is None]
    if missing:
        raise ExportUnavailable(
            f"This server lacks {missing[0]}, which format {form} needs; its operator gets it with: "
            "pip install 'gradprobe[export]'"
        )
