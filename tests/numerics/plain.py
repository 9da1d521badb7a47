"""A spec's dense network in float64, passed through by hand: no probe, no hook points, no module's own forward."""

from torch import Tensor

from gradprobe.spec import Spec
from worker import batches
from worker.network import builders


def logits_and_outputs(spec: Spec, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The logits [B, 10], and every layer's z, in the graph; images [B, 784]."""
    network = builders.build(spec.network, batches.initialization_generator(spec.training.seed)).double()
    entry, outputs = images.double(), []
    for hidden, layer in zip(network.hidden, spec.network.layers, strict=False):
        outputs.append(hidden.layer(entry))
        before = outputs[-1] if hidden.normalization is None else hidden.normalization(outputs[-1])
        activated = hidden.activation(before)
        entry = activated + entry if spec.network.residual and layer.keeps_width else activated
    outputs.append(network.output(entry))
    return outputs[-1], outputs
