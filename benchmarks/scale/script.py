"""The script that a sweep is compared with: one network, trained as fast as a plain loop is; it records nothing.

`python -m benchmarks.scale.script ACTIVATION SEED ITERATIONS DIRECTORY`; the directory holds MNIST's four IDX files.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn, optim
from torch.nn import functional

_HEADER = {"images": 16, "labels": 8}
_ACTIVATIONS = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU, "tanh": nn.Tanh}


def read(directory: Path, which: str, what: str) -> Tensor:
    """One of the files: images float32 [N, 784] in 0…1, or labels int64 [N]."""
    (path,) = directory.glob(f"{which}-{what}-idx*-ubyte")
    values = np.frombuffer(path.read_bytes(), np.uint8, offset=_HEADER[what])
    if what == "labels":
        return torch.from_numpy(values.astype(np.int64))
    return torch.from_numpy(values.reshape(-1, 784).astype(np.float32) / 255.0)


def main(activation: str, seed: int, iterations: int, directory: Path) -> None:
    """Train, and print the test accuracy."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    images, labels = read(directory, "train", "images"), read(directory, "train", "labels")
    layers: list[nn.Module] = []
    for inputs in (784, *[10] * 4):
        layers += [nn.Linear(inputs, 10), _ACTIVATIONS[activation]()]
    network = nn.Sequential(*layers, nn.Linear(10, 10))
    optimizer = optim.Adam(network.parameters(), lr=0.001, fused=True)
    order = torch.randperm(len(labels)).split(30)
    for step in range(iterations):
        batch = order[step % len(order)]
        loss = functional.cross_entropy(network(images[batch]), labels[batch])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        found = network(read(directory, "t10k", "images")).argmax(1)
    accuracy = (found == read(directory, "t10k", "labels")).double().mean()
    sys.stdout.write(f"{float(accuracy):.4f}\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
