"""How much memory measuring takes: a training with the probe against one without, each in a process of its own.

`python -m benchmarks.memory SPEC plain|watched` prints by how many bytes the process grew at most while it trained. A
small training goes before, so that code loaded or compiled on first use does not count.
"""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import torch

from benchmarks.training import dataset, forget, lasting, own_network, plain_step, recorded
from gradprobe.spec import Spec
from worker.data import Dataset
from worker.loop import Pace, train

_CPU = torch.device("cpu")
_LOOK_EVERY = 5
_ROOT = Path(__file__).absolute().parents[1]


def growth(spec: Spec, dataset_name: str, iterations: int, watched: bool) -> int:
    """Bytes, measured in a new process."""
    arguments = [spec.model_dump_json(), dataset_name, str(iterations), "watched" if watched else "plain"]
    # What is freed goes back to the system at once, so that the first training's memory is not used for the second's.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(  # noqa: S603 - this module
        [sys.executable, "-m", "benchmarks.memory", *arguments],
        cwd=_ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
    )
    return int(done.stdout)


class _Scale:
    """The largest size of this process since it was made, over its size then."""

    def __init__(self) -> None:
        gc.collect()
        self._process = psutil.Process()
        self._before = self._process.memory_info().rss
        self._looks = 0
        self.most = 0

    def look(self) -> None:
        self._looks += 1
        if self._looks % _LOOK_EVERY == 0:
            self.most = max(self.most, self._process.memory_info().rss - self._before)


def _train(spec: Spec, data: Dataset, iterations: int, watched: bool) -> int:
    scale = _Scale()
    if watched:
        train(lasting(recorded(spec, 1, 1), iterations), data, _CPU, forget, Pace(), scale.look)
    else:
        step = plain_step(own_network(spec, _CPU), spec, data, _CPU)
        for _ in range(iterations):
            step()
            scale.look()
    return scale.most


def main() -> None:
    """The command line, for `growth`."""
    document, dataset_name, iterations, kind = sys.argv[1:]
    torch.set_num_threads(1)
    spec, data = Spec.model_validate(json.loads(document)), dataset(dataset_name)
    small = spec.model_copy(update={"network": spec.network.model_copy(update={"depth": 2, "width": 4})})
    _train(small, data, 2 * _LOOK_EVERY, kind == "watched")
    sys.stdout.write(str(_train(spec, data, int(iterations), kind == "watched")))


if __name__ == "__main__":
    main()
