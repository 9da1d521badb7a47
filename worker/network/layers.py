"""What networks are made of: a hidden layer, a skip connection around it, a residual block, and the whole."""

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from gradprobe.probe import Observer
from gradprobe.spec import SIDE


class Hidden(nn.Module):
    """One hidden layer: weights → normalization → activation → dropout; what there is not is None.

    Attributes:
        watching: who is told of this forward pass; the list belongs to the whole network.
        index: which weight layer of the network this is.
    """

    def __init__(
        self,
        layer: nn.Linear | nn.Conv2d,
        normalization: nn.Module | None,
        activation: nn.Module,
        dropout: nn.Module | None,
    ) -> None:
        super().__init__()
        self.layer = layer
        self.normalization = normalization
        self.activation = activation
        self.dropout = dropout
        self.watching: list[Observer] = []
        self.index = 0
        # A small net's step is mostly the cost of calls: what a module's own call adds is left out.
        self._weigh = dense_call(layer) if isinstance(layer, nn.Linear) else layer
        self._activate = activation.forward
        self._plain = normalization is None and dropout is None

    def forward(self, entry: Tensor, skipped: Tensor | None = None) -> Tensor:
        """[B, …] → [B, …]; `skipped` is added before the activation."""
        output: Tensor = self._weigh(entry)
        before = output if self._plain or self.normalization is None else self.normalization(output)
        if skipped is not None:
            before = before + skipped
        activated: Tensor = self._activate(before)
        for observer in self.watching:
            observer.see_output(self.index, output)
            observer.see_activation(self.index, before, activated)
        return activated if self._plain or self.dropout is None else self.dropout(activated)


def dense_call(layer: nn.Linear) -> Callable[[Tensor], Tensor]:
    """What a dense layer computes, without the call of a module around it."""
    return partial(functional.linear, weight=layer.weight, bias=layer.bias)


class Skipped(nn.Module):
    """A hidden layer with a skip connection around the whole of it."""

    def __init__(self, hidden: Hidden) -> None:
        super().__init__()
        self.hidden = hidden

    def forward(self, entry: Tensor) -> Tensor:
        """[B, …] → [B, …]."""
        return self.hidden.forward(entry) + _every(_stride(self.hidden), entry)


class Block(nn.Module):
    """A residual block (He et al. 2016): two hidden layers; what is skipped is added before the second's activation."""

    def __init__(self, first: Hidden, second: Hidden) -> None:
        super().__init__()
        self.first = first
        self.second = second

    def forward(self, entry: Tensor) -> Tensor:
        """[B, C, H, W] → [B, C, H, W], or half as high and wide."""
        return self.second.forward(self.first.forward(entry), _every(_stride(self.first), entry))


class Classifier(nn.Module):
    """Parts one after another, then a dense output layer; images as [B, 784], or [B, 1, 28, 28] for convolutions.

    Attributes:
        hidden: the hidden layers, input side first.
        layers: the weight layers, input side first.
        activations: one after each layer but the last.
        slopes: PReLU's, one an activation.
    """

    def __init__(self, hidden: Sequence[Hidden], parts: Sequence[nn.Module], output: nn.Linear) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.output = output
        # Plain lists: the modules in them belong to `parts`.
        self.hidden = list(hidden)
        self.layers = [*(part.layer for part in hidden), output]
        self.activations = [part.activation for part in hidden]
        self.slopes = [found.weight for found in self.activations if isinstance(found, nn.PReLU)]
        self._sees_images = isinstance(self.layers[0], nn.Conv2d)
        #: Hook points (`gradprobe.probe.attach`): who is told what each layer computes; probes register here.
        self.observers: list[Observer] = []
        self._watching: list[Observer] = []
        for index, layer in enumerate(hidden):
            layer.watching, layer.index = self._watching, index
        self._calls = [part.forward for part in parts]
        self._classify = dense_call(output)

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, 784] → logits [B, 10]."""
        self._watching[:] = [observer for observer in self.observers if observer.armed]
        hidden = images.view(-1, 1, SIDE, SIDE) if self._sees_images else images
        for call in self._calls:
            hidden = call(hidden)
        logits = self._classify(hidden.mean((2, 3)) if self._sees_images else hidden)
        for observer in self._watching:
            observer.see_output(len(self.layers) - 1, logits)
        return logits


def _stride(hidden: Hidden) -> int:
    return int(hidden.layer.stride[0]) if isinstance(hidden.layer, nn.Conv2d) else 1


def _every(stride: int, images: Tensor) -> Tensor:
    """What a skip connection carries past a stride of 2: every second row and column, no weights."""
    return images if stride == 1 else images[:, :, ::stride, ::stride]
