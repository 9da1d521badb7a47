"""What is said of a watched experiment where nothing can be drawn: a line at each change of state, and now and then."""

import math
import time
from datetime import datetime

from gradprobe.cli.live import Follower
from gradprobe.cli.session import Session
from gradprobe.cli.wording import NOTHING, amount, fixed, progress
from gradprobe.state import Status

_LINE_SECONDS = 5.0


class Lines:
    """The lines of one experiment."""

    def __init__(self, session: Session, follower: Follower) -> None:
        self._session = session
        self._follower = follower
        self._said = float("-inf")
        self._status: Status | None = None

    def tell(self) -> None:
        """Print a line where there is something new, or where the last one is some seconds old."""
        experiment, now = self._follower.experiment, time.monotonic()
        changed = experiment.status is not self._status
        if changed or (now - self._said >= _LINE_SECONDS and not experiment.status.ended):
            self._said, self._status = now, experiment.status
            self._session.out.print(
                f"{datetime.now().astimezone():%H:%M:%S}  {experiment.id}  {experiment.status}  "
                f"{progress(experiment)}  loss {fixed(self._follower.loss)}  {rate_of(self._follower)}",
                markup=False,
            )


def rate_of(follower: Follower) -> str:
    """Iterations per second."""
    return f"{NOTHING if math.isnan(follower.rate) else amount(follower.rate)} it/s"
