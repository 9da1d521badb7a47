"""What a watcher knows of a running experiment: fetched piece by piece, only what is new each time."""

import time

from gradprobe.cli.layers import finite_mean
from gradprobe.cli.track import tracks_of
from gradprobe.client import Client, ProblemError
from gradprobe.resources import Experiment

_RECENT = 100  # iterations that the loss shown is averaged over


class Follower:
    """Looks at one experiment again and again."""

    def __init__(self, client: Client, experiment: Experiment) -> None:
        self.client = client
        self.experiment = experiment
        self.loss = float("nan")
        self.rate = float("nan")
        self._begin()

    def look(self) -> Experiment:
        """Fetch the experiment and update the iterations per second."""
        fresh = self.client.get(self.experiment.id)
        again = fresh.attempt != self.experiment.attempt
        self.experiment = fresh
        if again:  # another attempt may begin at an earlier iteration
            self._begin()
        self._measure_rate()
        return fresh

    def fetch_statistics(self) -> None:
        """Fetch what was recorded since the last time."""
        try:
            for track in self.tracks.values():
                track.fetch(self.client, self.experiment)
            self.fetch_loss()
        except ProblemError as error:
            # Between the claim and the first flush there is nothing to read, and a server may say so.
            if error.status not in (404, 409) or self.experiment.status.ended:
                raise

    def _begin(self) -> None:
        self.tracks = tracks_of(self.experiment)
        self._marks = [(time.monotonic(), self.experiment.progress.iteration)]

    def _measure_rate(self) -> None:
        result = self.experiment.result
        if result is not None:
            self.rate = result.iterations_per_second
            return
        now, iteration = time.monotonic(), self.experiment.progress.iteration
        if iteration != self._marks[-1][1]:
            self._marks = [*self._marks[-9:], (now, iteration)]
        (began, first), (ended, last) = self._marks[0], self._marks[-1]
        # The first mark may lie long before the first iteration, so a rate needs two moves.
        if len(self._marks) > 2:
            (began, first) = self._marks[1]
        if len(self._marks) > 2 and ended > began:
            self.rate = (last - first) / (ended - began)

    def fetch_loss(self) -> None:
        """Fetch the loss of the newest recorded steps."""
        every = int(self.experiment.spec.get("recording", {}).get("every", 1))
        start = max(0, self.experiment.progress.iteration - max(_RECENT, 2 * every))
        losses = self.client.metrics(self.experiment.id, start=start).values.get("loss")
        if losses is not None and losses.size:
            self.loss = finite_mean(losses[-_RECENT:])
