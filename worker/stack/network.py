"""What a network computes after its first layer, for all members at once: activations [M, B, U], weights [M, U, U]."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from gradprobe.spec import Network, PReLU
from worker.network import builders
from worker.stack.layout import Parts

#: Computes layer `number`'s z [M, B, U] from its entry h [M, B, K].
Layer = Callable[[int, Tensor], Tensor]

#: Running means and variances of each hidden layer's units; empty where nothing is normalized over the batch.
Moments = Sequence[tuple[Tensor, Tensor]]

_EPSILON = 1e-5
_MOMENTUM = 0.1


@dataclass(slots=True)
class Seen:
    """z of every layer; of hidden ones what the activation got, and h."""

    outputs: list[Tensor] = field(default_factory=list)
    inputs: list[Tensor] = field(default_factory=list)
    activated: list[Tensor] = field(default_factory=list)


class StackedNetwork:
    """The networks of one spec's shape; what is different in each member are its parameters and running moments."""

    def __init__(self, network: Network) -> None:
        self._network = network
        activation = network.activation
        self._plain = None if isinstance(activation, PReLU) else builders.activation(activation)
        self._normalize = _NORMALIZATIONS[network.normalization]

    @property
    def moments(self) -> int:
        """How many running moments a member has: means and variances of every hidden unit, for `batch`."""
        network = self._network
        return 2 * (network.depth - 1) * network.width if network.normalization == "batch" else 0

    def first_moments(self) -> Tensor:
        """They begin with means of 0 and variances of 1; [hidden layers, 2, width] flat."""
        return (
            torch.tensor([0.0, 1.0])
            .repeat_interleave(self._network.width)
            .repeat(self._network.depth - 1)[: self.moments]
        )

    def run(self, first: Tensor, parts: Parts, moments: Moments, training: bool, layer: Layer, seen: Seen) -> Tensor:
        """Logits [M, B, 10] from the first layer's z [M, B, U].

        `moments`: of each hidden layer means and variances [M · U]; written to while `training`.
        """
        output, entry = first, None
        for number in range(1, self._network.depth):
            seen.outputs.append(output)
            normalized = self._normalize(output, parts, number, moments, training)
            activated = self._activate(normalized, parts, number)
            seen.inputs.append(normalized)
            seen.activated.append(activated)
            entry = activated + entry if self._network.residual and entry is not None else activated
            output = layer(number + 1, entry)
        seen.outputs.append(output)
        return output

    def _activate(self, entry: Tensor, parts: Parts, number: int) -> Tensor:
        if self._plain is not None:
            plain: Tensor = self._plain(entry)
            return plain
        return torch.where(entry > 0, entry, parts[f"slope{number}"] * entry)


def _none(output: Tensor, _parts: Parts, _number: int, _moments: Moments, _training: bool) -> Tensor:
    return output


def _batch(output: Tensor, parts: Parts, number: int, moments: Moments, training: bool) -> Tensor:
    members, batch, units = output.shape
    # Every member's units are channels of their own.
    normalized = functional.batch_norm(
        output.transpose(0, 1).reshape(batch, members * units),
        *moments[number - 1],
        training=training,
        momentum=_MOMENTUM,
        eps=_EPSILON,
    )
    back = normalized.view(batch, members, units).transpose(0, 1).contiguous()
    return back * parts[f"scale{number}"] + parts[f"shift{number}"]


def _layer(output: Tensor, parts: Parts, number: int, _moments: Moments, _training: bool) -> Tensor:
    normalized = functional.layer_norm(output, output.shape[-1:], eps=_EPSILON)
    return normalized * parts[f"scale{number}"] + parts[f"shift{number}"]


def _rms(output: Tensor, parts: Parts, number: int, _moments: Moments, _training: bool) -> Tensor:
    normalized = output * (output.square().mean(-1, keepdim=True) + _EPSILON).rsqrt()
    return normalized * parts[f"scale{number}"]


_NORMALIZATIONS: dict[str, Callable[[Tensor, Parts, int, Moments, bool], Tensor]] = {
    "none": _none,
    "batch": _batch,
    "layer": _layer,
    "rms": _rms,
}


def by_layer(moments: Tensor, count: int, layers: int) -> Moments:
    """Rows [M, layers · 2 · U] as means and variances [M · U] a layer, in memory of their own; none for no count."""
    if not count:
        return []
    members = len(moments)
    both = moments.view(members, layers, 2, -1).permute(1, 2, 0, 3).reshape(layers, 2, -1)
    return [(means.clone(), variances.clone()) for means, variances in both]


def of_member(moments: Moments, member: int, members: int) -> Moments:
    """One of so many members' running means and variances, [U] a hidden layer."""
    return [(mean.view(members, -1)[member], variance.view(members, -1)[member]) for mean, variance in moments]


def flat(moments: Moments) -> Tensor:
    """Means and variances of the hidden layers, [U] each, as a row; empty where there are none."""
    return torch.cat([half for both in moments for half in both]) if moments else torch.empty(0)
