"""Loss and accuracy of one member over a whole set of images."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from worker.evaluate import Evaluation
from worker.stack import kernels
from worker.stack.images import Data, Images
from worker.stack.layout import Layout
from worker.stack.network import Moments, Seen, StackedNetwork

#: Few enough for all that a layer computes to stay in the cache.
_IMAGES_AT_ONCE = 2000


class Evaluator:
    """Evaluates parameters [P] as the network that they are, one member at a time, so that company changes nothing."""

    def __init__(self, network: StackedNetwork, layout: Layout, data: Data) -> None:
        self._network, self._layout, self._data = network, layout, data
        self._table = layout.table(data.images.inputs)

    def test(self, parameters: Tensor, moments: Moments) -> Evaluation:
        """Over the test set; moments are [U] a hidden layer."""
        return self._evaluate(parameters, moments, self._data.test_images, self._data.test_labels)

    def train(self, parameters: Tensor, moments: Moments) -> Evaluation:
        """Over the training set."""
        return self._evaluate(parameters, moments, self._data.images, self._data.labels)

    @torch.inference_mode()
    def _evaluate(self, parameters: Tensor, moments: Moments, images: Images, labels: Tensor) -> Evaluation:
        row = parameters[None]
        parts, rows = self._layout.views(row), row.numpy()

        def layer(number: int, entry: Tensor) -> Tensor:
            output = torch.empty(*entry.shape[:2], self._layout.units(number))
            entries = entry.contiguous().numpy()
            kernels.layer(entries, rows, self._layout.start(number), output.numpy(), self._table)
            return output

        loss, correct = 0.0, 0
        for start in range(0, len(images), _IMAGES_AT_ONCE):
            end = min(start + _IMAGES_AT_ONCE, len(images))
            first = torch.empty(1, end - start, self._layout.units(1))
            chosen = np.arange(start, end)[None]
            kernels.first_layer(chosen, *images.arrays, rows, first.numpy(), self._table[: images.inputs])
            logits = self._network.run(first, parts, moments, False, layer, Seen())[0]
            wanted = labels[start:end]
            # With the classes before the samples torch takes many samples at once, many times as fast.
            classes_first = logits.double().t()[None]
            loss += float(functional.cross_entropy(classes_first, wanted[None], reduction="sum"))
            correct += int((logits.argmax(1) == wanted).sum())
        return Evaluation(loss / len(labels), correct / len(labels))
