"""Trains an experiment once, and keeps what was measured, so that rules can be judged again without training."""

import hashlib
import json
import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import torch

from gradprobe.blocks import StatisticsBlock
from gradprobe.settings import Settings
from gradprobe.spec import Spec
from gradprobe.statistics import Tensor
from worker.data import Dataset, load
from worker.loop import Chunk, Outcome, Pace, train

_PACE: Final = Pace(flush_seconds=3600.0, first_flush_seconds=3600.0, memory_mebibytes=256)
_TESTS: Final = 2000


@dataclass(frozen=True, slots=True)
class Run:
    """What an experiment came to: blocks as the worker stores them, and the outcome."""

    spec: Spec
    blocks: dict[Tensor, StatisticsBlock]
    outcome: dict[str, float]


@dataclass(slots=True)
class _Sink:
    parts: dict[Tensor, list[StatisticsBlock]] = field(default_factory=dict)

    def __call__(self, chunk: Chunk) -> None:
        found: dict[Tensor, StatisticsBlock] = {
            **chunk.measured.statistics, "metrics": chunk.metrics, "evaluation": chunk.evaluations
        }  # fmt: skip
        for tensor, block in found.items():
            if len(block.steps):
                self.parts.setdefault(tensor, []).append(block)


class Runs:
    """A folder of runs, one a spec; what is there is not trained again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.trained = 0
        self.seconds = 0.0

    def of(self, spec: Spec) -> Run:
        """The run of a spec, from the folder or trained now."""
        place = self._folder / hashlib.sha256(spec.model_dump_json().encode()).hexdigest()[:24]
        if not (place / "outcome.json").exists():
            began = time.perf_counter()
            _keep(place, *_trained(spec))
            self.trained += 1
            self.seconds += time.perf_counter() - began
        return _kept(place, spec)


def _trained(spec: Spec) -> tuple[dict[Tensor, StatisticsBlock], Outcome]:
    torch.set_num_threads(1)
    sink = _Sink()
    outcome = train(spec, dataset(spec), torch.device("cpu"), sink, _PACE)
    return {tensor: StatisticsBlock.join(parts) for tensor, parts in sink.parts.items()}, outcome


def dataset(spec: Spec) -> Dataset:
    """The experiment's data, with fewer test images than there are."""
    whole = load(spec.dataset.name, spec.dataset.normalization, Settings())
    return replace(whole, test_images=whole.test_images[:_TESTS], test_labels=whole.test_labels[:_TESTS])


def _keep(place: Path, blocks: dict[Tensor, StatisticsBlock], outcome: Outcome) -> None:
    temporary = place.with_name(f"{place.name}.{os.getpid()}")
    temporary.mkdir(parents=True, exist_ok=True)
    for tensor, block in blocks.items():
        (temporary / f"{tensor}.block").write_bytes(block.encode())
    told = {
        "final_loss": outcome.final_loss,
        "train_accuracy": outcome.train.accuracy,
        "test_accuracy": outcome.test.accuracy,
        "seconds": outcome.seconds,
    }
    (temporary / "outcome.json").write_text(json.dumps(told), encoding="utf-8")
    temporary.replace(place)


def _kept(place: Path, spec: Spec) -> Run:
    blocks: dict[Any, StatisticsBlock] = {
        path.stem: StatisticsBlock.decode(path.read_bytes()) for path in sorted(place.glob("*.block"))
    }
    return Run(spec, blocks, json.loads((place / "outcome.json").read_text(encoding="utf-8")))
