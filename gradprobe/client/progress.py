"""A bar for those who wait: in a notebook, on a terminal, and nothing where there is neither."""

import html
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from gradprobe.group_resources import Remedies, Sweep
from gradprobe.resources import Experiment

if TYPE_CHECKING:
    from rich.progress import Progress

Waited = Experiment | Sweep | Remedies
Show = Callable[[Waited], None]


@contextmanager
def shown(wanted: bool, title: str) -> Iterator[Show | None]:
    """What brings a bar up to date; None where none is wanted, or where nobody would see it."""
    if wanted and _in_notebook():
        yield _notebook(title)
    elif wanted and sys.stderr is not None and sys.stderr.isatty():
        with _terminal.task(title) as show:
            yield show
    else:
        yield None


def words_of(waited: Waited) -> str:
    """`sigmoid baseline: running, 1,200 of 2,500 iterations`, on one line whatever the name is."""
    name = waited.id if isinstance(waited, Remedies) else waited.name or waited.id
    name = "".join(character if character.isprintable() else " " for character in name)
    done = f"{waited.progress.iteration:,} of {waited.progress.iterations:,} iterations"
    if not isinstance(waited, Experiment):
        counts = waited.counts
        ended = counts.succeeded + counts.failed + counts.cancelled
        done = f"{ended} of {ended + counts.queued + counts.running} experiments ended, {done}"
    return f"{name}: {waited.status}, {done}"


def _in_notebook() -> bool:
    """Whether a Jupyter kernel runs this; IPython in a terminal is a terminal."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return hasattr(shell, "kernel")


def _notebook(title: str) -> Show:
    """The browser's own progress element: it follows the notebook's theme and needs no widgets."""
    display: Any = sys.modules["IPython"].display
    handle = display.display(display.HTML(html.escape(title)), display_id=True)

    def show(waited: Waited) -> None:
        at, of = waited.progress.iteration, max(1, waited.progress.iterations)
        bar = f'<progress value="{at}" max="{of}" style="width: 18em; vertical-align: middle"></progress>'
        handle.update(display.HTML(f"<div>{bar} {html.escape(words_of(waited))}</div>"))

    return show


class _Terminal:
    """The bars of all who wait at the moment: a terminal has room for one drawing at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bars: Progress | None = None
        self._waiting = 0

    @contextmanager
    def task(self, title: str) -> Iterator[Show]:
        """A line of its own, which goes with the last who waits."""
        bars = self._entered()
        task = bars.add_task("", total=None, words=title)

        def show(waited: Waited) -> None:
            at, of = waited.progress.iteration, max(1, waited.progress.iterations)
            bars.update(task, completed=at, total=of, words=words_of(waited))

        try:
            yield show
        finally:
            self._left()

    def _entered(self) -> "Progress":
        # Only those who look at a bar pay for what draws it.
        from rich.console import Console  # noqa: PLC0415
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

        with self._lock:
            if self._bars is None:
                columns = (BarColumn(), TextColumn("{task.fields[words]}", markup=False), TimeRemainingColumn())
                self._bars = Progress(*columns, console=Console(stderr=True))
                self._bars.start()
            self._waiting += 1
            return self._bars

    def _left(self) -> None:
        with self._lock:
            self._waiting -= 1
            if self._waiting == 0 and self._bars is not None:
                self._bars.stop()
                self._bars = None


_terminal = _Terminal()
