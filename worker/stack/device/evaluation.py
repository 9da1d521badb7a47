"""Loss and accuracy of members over a whole set of images, many members at once."""

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from worker.stack.device.data import DeviceData
from worker.stack.layout import Layout
from worker.stack.network import Moments, Seen, StackedNetwork

_IMAGES_AT_ONCE: Final = 2000
#: Of a layer's outputs for all members that are evaluated at once: 256 MiB as float32.
_ELEMENTS_AT_ONCE: Final = 1 << 26


class DeviceEvaluator:
    """Evaluates rows [M, P] as the networks that they are."""

    def __init__(self, network: StackedNetwork, layout: Layout, data: DeviceData) -> None:
        self._network, self._layout, self._data = network, layout, data
        widest = max(layout.units(number) for number in range(1, layout.layers + 1))
        self._at_once = max(1, _ELEMENTS_AT_ONCE // (_IMAGES_AT_ONCE * widest))

    def test(self, parameters: Tensor, moments: Moments, members: Sequence[int]) -> Tensor:
        """These members' loss and accuracy over the test set, float64 [2, m] on the device."""
        return self._all(parameters, moments, members, self._data.test_images, self._data.test_labels)

    def train(self, parameters: Tensor, moments: Moments, members: Sequence[int]) -> Tensor:
        """The same over the training set."""
        return self._all(parameters, moments, members, self._data.images, self._data.labels)

    @torch.inference_mode()
    def _all(
        self, parameters: Tensor, moments: Moments, members: Sequence[int], images: Tensor, labels: Tensor
    ) -> Tensor:
        found = []
        for start in range(0, len(members), self._at_once):
            some = torch.tensor(members[start : start + self._at_once]).to(parameters.device)
            count = len(parameters)
            theirs = [
                (mean.view(count, -1)[some].view(-1), variance.view(count, -1)[some].view(-1))
                for mean, variance in moments
            ]
            found.append(self._some(parameters[some], theirs, images, labels))
        return torch.cat(found, dim=1)

    def _some(self, rows: Tensor, moments: Moments, images: Tensor, labels: Tensor) -> Tensor:
        parts, members = self._layout.views(rows), len(rows)

        def layer(number: int, entry: Tensor) -> Tensor:
            return torch.baddbmm(parts[f"bias{number}"], entry, parts[f"weight{number}"])

        losses = torch.zeros(members, dtype=torch.float64, device=rows.device)
        correct = torch.zeros(members, dtype=torch.int64, device=rows.device)
        for some, wanted in zip(images.split(_IMAGES_AT_ONCE), labels.split(_IMAGES_AT_ONCE), strict=True):
            first = layer(1, some.expand(members, *some.shape))
            logits = self._network.run(first, parts, moments, False, layer, Seen())
            labeled = wanted.expand(members, -1)
            log_likelihoods = functional.log_softmax(logits.double(), 2).gather(2, labeled[..., None])
            losses -= log_likelihoods.sum((1, 2))
            correct += (logits.argmax(2) == labeled).sum(1)
        return torch.stack([losses, correct.double()]) / len(labels)
