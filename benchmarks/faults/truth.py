"""Whether a label holds, without any rule: how far δ decays in float64, and whether the net learns.

The reference shares nothing with the probe, the statistics or the theory: torch's autograd in float64 on the network as
it starts, over images of the test set, which no training saw.
"""

import math
from dataclasses import dataclass
from typing import Final

from torch import Tensor, nn
from torch.nn import functional

from benchmarks.faults.cases import Case
from benchmarks.faults.runs import Run, Runs, dataset
from gradprobe.spec import CLASSES, Spec
from worker import batches
from worker.network import builders

_IMAGES: Final = 256
#: Six correlation lengths (Schoenholz et al. 2017): e-folds of ‖δ‖² from the output layer to the first.
LIMIT: Final = 6.0
_GUESS: Final = math.log(CLASSES)
#: A healthy net brings its loss to less than half of a guess's; a faulty one ends at more than twice its base's.
_HALF: Final = 0.5
_TWICE: Final = 2.0


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known of an experiment without rules.

    Attributes:
        decay: ln‖δ₁‖² − ln‖δ_N‖², float64, −∞ where nothing arrives, NaN where something is not finite.
        learns: whether its loss fell below half of a guess's.
        worse: whether it ended with more than twice its base's loss.
        holds: whether the label is confirmed.
    """

    decay: float
    learns: bool
    worse: bool
    holds: bool


def truth_of(case: Case, runs: Runs) -> Truth:
    """Trains the experiment and its base, where they are not trained yet."""
    run, base = runs.of(case.spec), runs.of(case.base)
    decay = log_delta_ratio(case.spec)
    learns, base_learns = _learns(run), _learns(base)
    loss = run.outcome["final_loss"]
    worse = not loss <= _TWICE * base.outcome["final_loss"]
    # Behind a normalization the scale of z, and so δ's, has no effect: there learning alone decides.
    beyond = not abs(decay) <= LIMIT and case.spec.network.normalization == "none"
    holds = (learns and not beyond) if case.cause is None else base_learns and (beyond or worse)
    return Truth(decay, learns, worse, holds)


def _learns(run: Run) -> bool:
    return run.outcome["final_loss"] < _HALF * _GUESS


def log_delta_ratio(spec: Spec) -> float:
    """ln‖δ₁‖² − ln‖δ_N‖² of a spec's network as it starts."""
    network = builders.build(spec.network, batches.initialization_generator(spec.training.seed)).double()
    outputs: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        output.retain_grad()
        outputs.append(output)

    handles = [module.register_forward_hook(keep) for module in (network.layers[0], network.layers[-1])]
    try:
        data = dataset(spec)
        # The network calls its layers' functions and not the modules: hooks need the modules' own calls.
        logits = _forward(network, data.test_images[:_IMAGES].double())
    finally:
        for handle in handles:
            handle.remove()
    functional.cross_entropy(logits, data.test_labels[:_IMAGES]).backward()
    first, last = (_squared(outputs[0].grad), _squared(outputs[-1].grad))
    if not (math.isfinite(first) and math.isfinite(last)):
        return math.nan
    return math.log(first / last) if first > 0 and last > 0 else -math.inf


def _squared(gradient: Tensor | None) -> float:
    return 0.0 if gradient is None else float(gradient.square().sum())


def _forward(network: nn.Module, images: Tensor) -> Tensor:
    """Dense layers alone: weights → normalization → activation, plus what is skipped."""
    hidden = images
    for part in network.parts:  # type: ignore[union-attr]  # a ModuleList of Hidden or Skipped
        layer = getattr(part, "hidden", part)
        output = layer.layer(hidden)
        activated = layer.activation(output if layer.normalization is None else layer.normalization(output))
        hidden = activated + hidden if layer is not part else activated
    logits: Tensor = network.output(hidden)  # type: ignore[operator]  # a Linear
    return logits
