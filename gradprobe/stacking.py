"""Which experiments can train side by side as one batched network: those whose networks have one shape.

Members may differ in seed, initialization, learning rate and its schedule, weight decay, clipping and length,
and in what is recorded and when; everything that decides which kernels run is the same.
"""

import hashlib
import json
from typing import Any, Final

from gradprobe.histogram import BINS
from gradprobe.parts.geometry import INPUTS
from gradprobe.spec import SGD, PReLU, Spec

#: Parameters beyond which a step is mostly arithmetic, and batching it saves next to nothing.
MAXIMUM_PARAMETERS: Final = 200_000
#: The same, of all layers' outputs for one batch.
MAXIMUM_OUTPUTS: Final = 1_000_000
#: What a member of a stack may take for what is measured of it, in MiB.
RECORD_MEBIBYTES: Final = 8
_KEY_LENGTH: Final = 32


def stack_key(spec: Spec) -> str | None:
    """The same for experiments that can be in one stack; None for one that trains by itself.

    By itself trains what runs in half precision, what has convolutions or draws dropout at every step, and what is so
    large that company makes it no faster. What must run on a GPU has no company that may run elsewhere.
    """
    network, training = spec.network, spec.training
    fits = (
        network.kind == "mlp"
        and network.dropout == 0.0
        and not (network.residual and network.width == INPUTS)
        and training.precision == "float32"
        and network.parameter_count <= MAXIMUM_PARAMETERS
        and network.output_count * training.batch_size <= MAXIMUM_OUTPUTS
    )
    return hashlib.sha256(json.dumps(_shape(spec)).encode()).hexdigest()[:_KEY_LENGTH] if fits else None


def _shape(spec: Spec) -> list[Any]:
    network, optimizer = spec.network, spec.optimizer
    # A slope that is trained may begin anywhere; a fixed one is part of the kernel.
    activation = "prelu" if isinstance(network.activation, PReLU) else network.activation.model_dump(mode="json")
    momentum = [optimizer.momentum, optimizer.nesterov] if isinstance(optimizer, SGD) else []
    return [
        spec.dataset.model_dump(mode="json"),
        [network.depth, network.width, activation, network.normalization, network.residual],
        [optimizer.name, *momentum],
        spec.training.batch_size,
        *(["cuda"] if spec.training.device == "cuda" else []),
    ]


def bytes_of(spec: Spec, members: int, device: str = "cpu") -> int:
    """What a stack of so many takes in memory; on the CPU apart from what is measured, on a GPU with it."""
    network, batch = spec.network, spec.training.batch_size
    # Parameters, gradients and two slots; of each layer's outputs what a step keeps of them on the way there and back.
    numbers = 4 * network.parameter_count + 12 * network.output_count * batch
    if device == "cpu":
        return 4 * numbers * members
    # The images of a batch, and the places of those of the next 256 steps; each captured form of a step, with and
    # without statistics or histograms, has memory of its own; and a step's histograms of two tensors at least.
    images = batch * (4 * INPUTS + 8 * 256)
    graphs = 3 * 4 * (2 * network.parameter_count + 12 * network.output_count * batch)
    records = max(RECORD_MEBIBYTES * 2**20, 2 * network.depth * BINS * 4)
    return (4 * numbers + images + graphs + records) * members
