"""What is said of a watched experiment where nothing can be drawn: a line at each change of state, and now and then."""

import math
import time
from datetime import datetime

from gradprobe.cli.live import Follower
from gradprobe.cli.session import Session
from gradprobe.cli.wording import NOTHING, amount, fixed, progress
from gradprobe.resources import Experiment
from gradprobe.state import Status

_LINE_SECONDS = 5.0
_LONG_IN_QUEUE_SECONDS = 10.0


class Lines:
    """The lines of one experiment; `label` is what they call it, its id by default."""

    def __init__(self, session: Session, follower: Follower, label: str | None = None) -> None:
        self._label = label or follower.experiment.id
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
            how = f"{progress(experiment)}  loss {fixed(self._follower.loss)}  {rate_of(self._follower)}"
            self._session.out.print(
                f"{datetime.now().astimezone():%H:%M:%S}  {self._label}  {experiment.status}  "
                f"{waiting(experiment) or how}",
                markup=False,
                soft_wrap=True,
            )


def waiting(experiment: Experiment) -> str | None:
    """Of one that is queued: that it waits, and for how long where that is unexpected; None of others."""
    if experiment.status is not Status.QUEUED:
        return None
    waited = (datetime.now().astimezone() - experiment.created_at).total_seconds()
    return "waiting for a worker" + (f" for {waited:.0f} s" if waited > _LONG_IN_QUEUE_SECONDS else "")


def rate_of(follower: Follower) -> str:
    """Iterations per second."""
    return f"{NOTHING if math.isnan(follower.rate) else amount(follower.rate)} it/s"
