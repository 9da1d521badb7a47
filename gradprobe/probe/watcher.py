"""Measures a module in a loop that is not ours: from its output's autograd graph and its optimizer's own hooks.

With `attach` the only file that registers hooks. One hook on the module sees its output; from there each layer's
product is found in the graph, and what arrives there on the way back is δ. A plain chain of layers needs neither: once
its graph has told what it is, it runs as one node that shows them (`chain`). A callback at the end of the backward pass
reads the parameters' gradients before anybody clips them; the optimizer's hooks tell when a step ends. No hook returns
anything, and none lets an error of ours out: the first one is warned of, and everything is taken away.
"""

import logging
import time
import warnings
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from gradprobe.blocks import StatisticsBlock
from gradprobe.errors import UnsupportedModule
from gradprobe.parts.watched import WatchedInputs, WatchedNetwork
from gradprobe.probe.chain import Chain, Forward
from gradprobe.probe.collector import NOTHING, Measured, Moment
from gradprobe.probe.describe import with_shapes
from gradprobe.probe.following import Following, Pass
from gradprobe.probe.graph import tensors_in
from gradprobe.probe.taking import Taking
from gradprobe.probe.tap import Recording
from gradprobe.probe.told import Row, Told, metrics

_DRAIN_SECONDS: Final = 1.0
_PRECISIONS: Final = {torch.bfloat16: "bfloat16", torch.float16: "float16"}

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Described:
    """What the first backward pass told of the loop."""

    network: WatchedNetwork
    inputs: WatchedInputs
    batch_size: int
    precision: str
    optimizer: str
    learning_rate: float
    classes: int | None
    tells_loss: bool


@dataclass(frozen=True, slots=True)
class Chunk:
    """What was measured since the last one; `step` is the number of updates so far."""

    step: int
    measured: Measured
    metrics: StatisticsBlock


class Hook:
    """A hook that stays behind where its module is copied or saved: the copy's does nothing."""

    def __init__(self, action: Callable[..., None] | None = None) -> None:
        self._action = action

    def __call__(self, *arguments: Any) -> None:
        if self._action is not None:
            self._action(*arguments)

    def __deepcopy__(self, _memo: Any) -> "Hook":
        return Hook()

    def __reduce__(self) -> tuple[Any, ...]:
        return Hook, ()


#: Those that watch now: two that watch one module must both see its graph.
_watchers: Final["weakref.WeakSet[Watcher]"] = weakref.WeakSet()


class Watcher:
    """Hooks on one module and its optimizer, until `detach`; what is measured goes to `sink`."""

    def __init__(
        self,
        module: nn.Module,
        optimizer: Optimizer | None,
        recording: Recording,
        sink: Callable[[Chunk], None],
        scaler: Any = None,
    ) -> None:
        self.module = module
        self.step = 0
        self.described: Described | None = None
        self.failure: Exception | None = None
        self.told = Told()
        self._recording = recording
        self._sink = sink
        self._scaler = scaler
        self._scale = 1.0
        self._following: Following | None = None
        self._taking: Taking | None = None
        self._pass: Pass | None = None
        self._rows: list[Row] = []
        self._unfit = 0
        self._drained = self._ended_at = time.perf_counter()
        self._look = self._guarded(self._on_forward)
        self._chain = Chain.of(module) if _alone(module) else None
        self._follows_chain = False
        self._handles: list[Any] = [
            Forward(module, self._run) if self._chain is not None else module.register_forward_hook(Hook(self._look))
        ]
        _watchers.add(self)
        self._at_end = self._guarded(self._collect)
        if isinstance(module, DistributedDataParallel):
            # Averaging over ranks ends in a callback that is queued after ours: ours goes behind it.
            self._at_end = self._guarded(partial(_at_end_of_backward, self._at_end))
        self._before, self._after = self._guarded(self._before_step), self._guarded(self._after_step)
        self._optimizer: Optimizer | None = None
        if optimizer is not None:
            self._bind(optimizer)
        else:
            self._handles.append(register_optimizer_step_pre_hook(self._guarded(self._on_any_optimizer)))

    @property
    def skipped(self) -> dict[str, int]:
        """Steps that were not measured, by reason."""
        found = dict(self._following.skipped) if self._following is not None else {}
        if self._unfit:
            found["of another size than the first one, which this device's collector can't take"] = self._unfit
        return found

    @property
    def idle(self) -> str:
        """Why nothing was measured, where nothing went wrong."""
        if self._following is None:
            if not self.step:
                return "no training step has run"
            return f"the optimizer made {self.step} steps, but the model did not run; is it the one that is trained?"
        if self._optimizer is None:
            return "the model ran, but no optimizer of its parameters has made a step"
        if not self.step:
            return (
                "the model ran, but the optimizer that was given has made no step; is it the loop's own, made before "
                "gradprobe.watch? Without one, whichever steps first is watched"
            )
        return "no training step has ended"

    def observe(self, criterion: nn.Module) -> None:
        """Hear the loss from its module."""
        self._handles.append(criterion.register_forward_hook(Hook(self._guarded(self._on_criterion))))

    def detach(self) -> None:
        """Take every hook away, and hand on what was measured."""
        _watchers.discard(self)
        handles, self._handles = self._handles, []
        for handle in handles:
            handle.remove()
        self._pass = None
        try:
            self.drain()
        except Exception:
            _logger.exception("the last steps were not taken")

    def drain(self) -> None:
        """Hand on what was measured of whole steps so far."""
        self._drained = time.perf_counter()
        measured = self._taking.drain() if self._taking is not None else NOTHING
        if measured is not NOTHING:
            rows, self._rows = self._rows, []
            self._sink(Chunk(self.step, measured, metrics(measured, rows)))

    def _guarded(self, action: Callable[..., None]) -> Callable[..., None]:
        """Called from within the training: an error of ours is none of its."""

        def call(*arguments: Any) -> None:
            if self._handles:
                try:
                    action(*arguments)
                except Exception as error:  # noqa: BLE001 - whatever it is
                    self._fail(error)

        return call

    def _fail(self, error: Exception) -> None:
        if self.failure is not None:
            return
        self.failure = error
        self.detach()
        try:
            told = error.message if isinstance(error, UnsupportedModule) else f"{type(error).__name__}: {error}"
            warnings.warn(f"gradprobe.watch stops, and the training goes on: {told}", RuntimeWarning, stacklevel=2)
        except RuntimeWarning:  # warnings are errors here, and this one must not end the training either
            _logger.warning("gradprobe.watch stops", exc_info=error)

    def _run(self, *inputs: Any, **named: Any) -> Any:
        """In the place of a chain's own forward: the whole chain as one node, or else its modules."""
        chain, failure = self._chain, None
        if chain is not None and self._follows_chain and self._handles and len(inputs) == 1 and not named:
            try:
                output = self._run_chain(chain, inputs[0])
            except Exception as error:  # noqa: BLE001 - its modules tell whether it is ours
                failure, output = error, None
            if output is not None:
                return output
        output = type(self.module).forward(self.module, *inputs, **named)
        if failure is not None:
            _logger.warning("the chain's modules run one by one", exc_info=failure)
            self.run_modules()
        self._look(self.module, inputs, output)
        return output

    def _run_chain(self, chain: Chain, x: Any) -> Tensor | None:
        moment = self._moment() if chain.fits(x) else None
        if moment is None:
            return None
        output, found = chain.run(x, self._on_backward)
        self._note(found, moment)
        return output

    def run_modules(self) -> None:
        """From now on the module runs as it is, and its graph tells what is measured."""
        self._chain = None

    def _moment(self) -> Moment | None:
        """The step that runs, if anything is wanted of it."""
        if self._scaler is not None:
            self._notice_skipped_step()
        statistics, counts = self._recording.statistics_at(self.step), self._recording.histogram_at(self.step)
        return Moment(self.step, statistics, counts) if statistics or counts else None

    def _note(self, found: Pass, moment: Moment) -> None:
        self._pass = found
        if self._taking is not None and self._taking.moment is None:
            self._taking.moment = moment

    def _on_forward(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        moment = self._moment() if torch.is_grad_enabled() else None
        if moment is None:
            return
        if self._following is None:
            self._begin(output)
        if self._following is None or self._taking is None:
            return
        self.told.take_output(output)
        found = self._following.follow(output, self._on_backward)
        if found is not None:
            self._note(found, moment)

    def _begin(self, output: Any) -> None:
        roots = tensors_in(output)
        if roots:
            self._following = Following(self.module, roots)
            trained = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
            self._taking = Taking(self._following.layers, trained, self._recording)
            seen, known = self._following.layers, self._chain.weights if self._chain is not None else []
            self._follows_chain = [id(layer.weight) for layer in seen] == [id(weight) for weight in known]

    def _on_backward(self, deltas: list[Any]) -> None:
        """The last layer's δ has come, the first of a backward pass."""
        if self._pass is not None and deltas is self._pass.deltas and self._handles:
            _at_end_of_backward(self._at_end)

    def _collect(self) -> None:
        taking, found = self._taking, self._pass
        if taking is None or found is None:
            return
        self._scale = float(self._scaler.get_scale()) if self._scaler is not None else 1.0
        try:
            taking.collect(found, self._scale)
        except UnsupportedModule:
            self._unfit += 1
            taking.moment, self._pass = None, None

    def _on_criterion(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            self.told.take_criterion(module, inputs, output)

    def _bind(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._handles.append(optimizer.register_step_pre_hook(self._before))
        self._handles.append(optimizer.register_step_post_hook(self._after))

    def _on_any_optimizer(self, optimizer: Optimizer, *_: Any) -> None:
        if self._optimizer is None:
            mine = {id(parameter) for parameter in self.module.parameters()}
            if any(id(parameter) in mine for group in optimizer.param_groups for parameter in group["params"]):
                self._bind(optimizer)  # its own hooks are called after this one, in this very step

    def _before_step(self, *_: Any) -> None:
        taking = self._taking
        if taking is None or taking.moment is None:
            return
        if not taking.collected:
            self._collect()  # the last layer took no part in this backward pass, so nothing told of its end
        taking.note_clipping(1 if self._scaler is not None else 0)

    def _after_step(self, optimizer: Optimizer, *_: Any) -> None:
        now = time.perf_counter()
        if self._taking is not None and self._taking.collected and self.described is None and self._pass is not None:
            self._describe(self._pass)
        if self._taking is not None and self._taking.finish():
            rate = float(optimizer.param_groups[0]["lr"])
            self._rows.append(Row(self.told.loss, self.told.accuracy, rate, now - self._ended_at))
        self.told.loss = self.told.accuracy = None
        self._pass = None
        self.step += 1
        if self._taking is not None and (self._taking.full or now - self._drained > _DRAIN_SECONDS):
            self.drain()
            now = time.perf_counter()
        self._ended_at = now

    def _notice_skipped_step(self) -> None:
        """A scale that fell since the backward pass: its gradients were not finite, and the step was left out."""
        optimizer = self._optimizer
        if optimizer is None or self._taking is None or not self._taking.collected:
            return
        if float(self._scaler.get_scale()) < self._scale:
            self._after_step(optimizer)

    def _describe(self, found: Pass) -> None:
        if self._following is None:
            return
        deltas = [given[0] if given is not None else None for given in found.deltas]
        types = {delta.dtype for delta in deltas if delta is not None}
        optimizer = self._optimizer
        self.described = Described(
            with_shapes(self._following.network, deltas),
            self._following.inputs,
            next((len(delta) for delta in reversed(deltas) if delta is not None), 1),
            next((_PRECISIONS[kind] for kind in types if kind in _PRECISIONS), "float32"),
            type(optimizer).__name__ if optimizer is not None else "",
            float(optimizer.param_groups[0]["lr"]) if optimizer is not None else 0.0,
            self.told.classes,
            self.told.loss is not None,
        )


def _alone(module: nn.Module) -> bool:
    """Whether no other watcher needs this module's graph; those that would hide it are told to show it."""
    mine = {id(parameter) for parameter in module.parameters()}
    others = [other for other in _watchers if any(id(one) in mine for one in other.module.parameters())]
    for other in others:
        other.run_modules()
    return not others


def _at_end_of_backward(action: Callable[[], None]) -> None:
    engine: Any = torch.autograd.Variable._execution_engine
    engine.queue_callback(action)
