"""What a user's loop holds in its hand: hooks while it trains, arrays and a verdict afterwards."""

import atexit
import logging
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import numpy as np
from torch import distributed

from gradprobe.blocks import StatisticsBlock
from gradprobe.client.arrays import Layer, Metrics, Series
from gradprobe.diagnosis import Diagnosis, Measurements, Thresholds, diagnose
from gradprobe.errors import NothingMeasured
from gradprobe.parts.watched import WatchedLoss, WatchedOptimizer, WatchedTraining
from gradprobe.probe.tap import Recording
from gradprobe.probe.watcher import Chunk, Described, Watcher
from gradprobe.resources import Reduction
from gradprobe.spec import TENSORS, TensorName
from gradprobe.spec import Recording as RecordingSpec
from gradprobe.state import Status
from gradprobe.statistics import Tensor as AnyTensor
from gradprobe.statistics import names
from gradprobe.subject import WatchedSpec
from gradprobe.watching.arguments import check
from gradprobe.watching.history import History
from gradprobe.watching.reporter import Reporter

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

_OF: Final[dict[str, AnyTensor]] = {
    "weights": "weight_gradients",
    "outputs": "output_gradients",
    "clipped_weights": "clipped_weight_gradients",
}
_DEFAULT: Final = Thresholds()
_MEBIBYTE: Final = 1024 * 1024

_logger = logging.getLogger(__name__)


class Verdict:
    """A diagnosis that reads as its sentences where it is printed; all of it is in `diagnosis`."""

    def __init__(self, diagnosis: Diagnosis, left_out: Sequence[str]) -> None:
        self.diagnosis = diagnosis
        self._left_out = tuple(left_out)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.diagnosis, name)

    def __str__(self) -> str:
        found = self.diagnosis
        lines = [found.summary]
        lines += [f"  {finding.severity}: {finding.explanation}" for finding in found.findings]
        first = found.findings[0].remedies if found.findings else ()
        lines += [f"  try {remedy.id.replace('_', ' ')}: {remedy.reason}" for remedy in first]
        lines += [f"  not judged: {text}" for text in found.silent]
        lines += [f"  not measured: {text}" for text in self._left_out]
        return "\n".join(lines)

    __repr__ = __str__


class Watching:
    """One watched loop. Made by `gradprobe.watch`; a context manager that takes its hooks away at the end.

    Attributes:
        active: whether it measures: false on the ranks that do not, after the end, and after an error of ours.
    """

    def __init__(self, watcher: Watcher | None, options: "Options") -> None:
        self._watcher = watcher
        self._options = options
        self._history = History(options.memory_mebibytes * _MEBIBYTE)
        self._reporter: Reporter | None = None
        self.active = watcher is not None

    def record(self, loss: Any = None, accuracy: Any = None) -> None:
        """Tell the loss of the step that runs (a number or a tensor of one), and its accuracy, before the update.

        Not needed where `criterion` was given. Nothing is read from a device until many steps are handed on together.
        """
        if self._watcher is not None and self.active:
            self._watcher.told.take(loss, accuracy)

    def end(self, error: BaseException | None = None) -> None:
        """Take every hook away; what is still to be reported gets `patience` seconds. `error`: what ended the loop."""
        if self._watcher is not None and self.active:
            self._watcher.detach()
            self.active = False
            if self._reporter is not None:
                atexit.unregister(self.end)
                told = (
                    ("failed", f"{type(error).__name__}: {error}"[:2000]) if error is not None else ("succeeded", None)
                )
                self._reporter.end(self._options.patience, *told)

    def report_to(self, reporter: Reporter) -> None:
        """Send what is measured from now on; at the latest the process's end is the run's."""
        self._reporter = reporter
        atexit.register(self.end)

    @property
    def steps(self) -> int:
        """Updates that the optimizer has made."""
        return self._watcher.step if self._watcher is not None else 0

    @property
    def left_out(self) -> tuple[str, ...]:
        """What is not measured, and why, in sentences."""
        if self._watcher is None:
            return ("this rank: rank 0 alone watches; give every_rank=True for all",)
        told = [f"{number} steps: {reason}" for reason, number in self._watcher.skipped.items()]
        if self._watcher.failure is not None:
            failure = self._watcher.failure
            told.append(f"anything after step {self._watcher.step}: {type(failure).__name__}: {failure}")
        if self._reporter is not None and self._reporter.problem is not None:
            told.append(f"reported to the server: {self._reporter.problem}")
        described = self._watcher.described
        return (*(described.network.left_out if described is not None else ()), *told)

    @property
    def spec(self) -> WatchedSpec:
        """What is known of the loop: layers, activations, whether theory knows it. Raises NothingMeasured."""
        if self._watcher is None or self._watcher.described is None:
            raise NothingMeasured(f"Nothing was measured: {self._why}.")
        return spec_of(self._watcher.described, self._options)

    def diagnosis(self, thresholds: Thresholds = _DEFAULT) -> Verdict:
        """What the rules say of what was measured so far; print it. Raises NothingMeasured."""
        spec, blocks = self.spec, self._statistics()
        return Verdict(diagnose(Measurements(spec, blocks), thresholds), self.left_out)

    def gradients(self, of: Literal["weights", "outputs", "clipped_weights"] = "weights") -> Series:
        """Every layer's gradients, as `Client.gradients` gives them: `[...]["0"]["norm"]` is float64 [S].

        `of`: of the weights (unscaled, before clipping), of the layers' outputs (δ, per sample), or of the weights
        after clipping. Raises NothingMeasured; ValueError for another `of`.
        """
        if of not in _OF:
            raise ValueError(f"of={of!r} is none of {', '.join(map(repr, _OF))}")
        return self._series(_OF[of], of)

    def weights(self) -> Series:
        """Every layer's weights before the step, and `update_ratio`. Raises NothingMeasured."""
        return self._series("weights", "weights")

    def activations(self) -> Series:
        """Every layer's activations; NaN where they can't be had. Raises NothingMeasured."""
        return self._series("activations", "activations")

    def metrics(self) -> Metrics:
        """Loss, accuracy, learning rate, gradient norm and seconds, as `Client.metrics`. Raises NothingMeasured."""
        block = self._block("metrics")
        values = {name: block.values[place, 0].astype(np.float64) for place, name in enumerate(names("metrics"))}
        nothing = np.empty(0, np.float64)
        return Metrics(
            self._identifier, self._status, block.steps, values, np.empty(0, np.int64), nothing, nothing, _whole(block)
        )

    @property
    def id(self) -> str | None:
        """The run's id on the server it reports to; None without one, or before the server has answered."""
        return self._reporter.id if self._reporter is not None else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(error)

    def take(self, chunk: Chunk) -> None:
        """What the hooks measured; called in the loop's own thread."""
        statistics: dict[AnyTensor, StatisticsBlock] = dict(chunk.measured.statistics)
        if len(chunk.metrics.steps):
            statistics["metrics"] = chunk.metrics
        counts: dict[AnyTensor, Any] = dict(chunk.measured.counts)
        self._history.add(statistics, counts)
        if self._reporter is not None and self._watcher is not None and self._watcher.described is not None:
            self._reporter.put(lambda: self.spec, chunk.step, statistics, counts)

    @property
    def _why(self) -> str:
        """Why nothing was measured."""
        return "; ".join(self.left_out) or (self._watcher.idle if self._watcher is not None else "")

    @property
    def _identifier(self) -> str:
        return self.id or "local"

    @property
    def _status(self) -> Status:
        return Status.RUNNING if self.active else Status.SUCCEEDED

    def _statistics(self) -> Mapping[AnyTensor, StatisticsBlock]:
        if self._watcher is not None and self.active:
            self._watcher.drain()
        found = self._history.statistics()
        if not found:
            raise NothingMeasured(f"Nothing was measured yet: {self._why}.")
        return found

    def _block(self, tensor: AnyTensor) -> StatisticsBlock:
        blocks = self._statistics()
        if tensor in blocks:
            return blocks[tensor]
        told = "the loop does not clip" if tensor == "clipped_weight_gradients" else "it is not among `tensors`"
        raise NothingMeasured(f"{tensor} was not measured: {told}.")

    def _series(self, tensor: AnyTensor, of: str) -> Series:
        block, known = self._block(tensor), names(tensor)
        layers = tuple(
            Layer(
                layer.name,
                layer.weight_shape,
                int(np.prod(layer.weight_shape)),
                {name: block.values[place, index].astype(np.float64) for place, name in enumerate(known)},
            )
            for index, layer in enumerate(self.spec.network.measured)
        )
        return Series(self._identifier, self._status, of, block.steps, layers, _whole(block))


class Options:
    """What `watch` was asked for, beside the module."""

    def __init__(self, recording: Recording, name: str | None, tags: Mapping[str, str], **others: Any) -> None:
        self.recording = recording
        self.name = name
        self.tags = dict(tags)
        self.iterations: int | None = others.get("iterations")
        self.memory_mebibytes: int = others.get("memory_mebibytes", 256)
        self.patience: float = others.get("patience", 30.0)


def watch(  # noqa: PLR0913 - what is usual has a default; all but the first two are given by name
    model: "nn.Module",
    optimizer: "Optimizer | None" = None,
    *,
    criterion: "nn.Module | None" = None,
    scaler: Any = None,
    every: int = 1,
    histograms_every: int = 25,
    tensors: Sequence[TensorName] = TENSORS,
    iterations: int | None = None,
    every_rank: bool = False,
    name: str | None = None,
    tags: Mapping[str, str] | None = None,
    memory_mebibytes: int = 256,
    url: str | None = None,
    key: str | None = None,
    patience: float = 30.0,
) -> Watching:
    """Measure a module's gradients while a loop trains it; the loop itself stays as it is.

    The training is the same to the bit. An error of ours is warned of once and ends the watching, never the training.

    Args:
        model: any module; what its autograd graph shows is measured. Watch it before `torch.compile`.
        optimizer: whose steps are the loop's steps; found at its first step where it is not given.
        criterion: the loss module; its calls then tell the loss and, of `nn.CrossEntropyLoss`, accuracy and classes.
            A loss that is a function is told by `record`.
        scaler: the `GradScaler` of mixed precision, so that statistics are of the unscaled gradients.
        every, histograms_every: steps divisible by these are recorded.
        tensors: which of weight_gradients, output_gradients, weights, activations.
        iterations: how many updates are planned, for rules that judge what is still to come.
        every_rank: in distributed training watch on all ranks, not on rank 0 alone.
        name, tags: what the run is called on a server.
        memory_mebibytes: for what was measured; beyond it older steps are thinned out.
        url, key: a server to report to, and its key (default `GRADPROBE_API_KEY`); without a url nothing leaves here.
        patience: seconds that the end waits for what is still to be reported.

    Returns:
        What holds the measurements; a context manager. Raises TypeError where something is given in the wrong place.
    """
    check(model, optimizer, criterion)
    recording = Recording(every, histograms_every, tuple(tensors))
    options = Options(
        recording,
        name,
        tags or {},
        iterations=iterations,
        memory_mebibytes=memory_mebibytes,
        patience=patience,
    )
    watching = Watching(None, options)
    if _rank() != 0 and not every_rank:
        return watching
    watching._watcher = Watcher(model, optimizer, recording, watching.take, scaler)
    if criterion is not None:
        watching._watcher.observe(criterion)
    watching.active = True
    if url is not None:
        watching.report_to(Reporter(url, key))
    return watching


def spec_of(described: Described, options: Options) -> WatchedSpec:
    """As it is stored on a server, and as the diagnosis reads it."""
    recording = options.recording
    precision: Any = described.precision
    return WatchedSpec(
        name=options.name,
        tags=options.tags,
        dataset=described.inputs,
        network=described.network,
        optimizer=WatchedOptimizer(name=described.optimizer, learning_rate=described.learning_rate),
        training=WatchedTraining(iterations=options.iterations, batch_size=described.batch_size, precision=precision),
        loss=WatchedLoss(recorded=described.tells_loss, classes=described.classes),
        recording=RecordingSpec(
            every=recording.every, histograms_every=recording.histograms_every, tensors=recording.tensors
        ),
    )


def _rank() -> int:
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


def _whole(block: StatisticsBlock) -> Reduction:
    return Reduction(method="none", points=len(block.steps), of_points=len(block.steps), bucket=1)
