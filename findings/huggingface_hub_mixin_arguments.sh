#!/bin/sh
# huggingface_hub 2.4.0: a network comes back with its default arguments if those it was built with are not JSON.
#
# `PyTorchModelHubMixin` keeps the arguments of a network in `config.json`, and `from_pretrained` passes them again.
# Expected: an argument that JSON cannot hold, such as a tensor, an array or an np.float32, is refused, or else
# `from_pretrained` misses it. Observed: it is left out without a word, and the file holds the default of the parameter
# instead, as if it had been chosen. `from_pretrained` builds a network with the default.
#
# The mean and std of a network that normalises its own images are such arguments: mostly arrays, and plain attributes
# or buffers that are not saved. The weights load, nothing warns, and the network computes something else. Here its
# accuracy is 10 points lower. Floats survive, and so does np.float64, since it is a float. Pass `list(map(float,
# mean))`, and compare the logits of the saved network with those of the loaded one.
#
# Exits with 0 if the problem still exists, with 1 if not. Needs 6 GB of disk for torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'torch==2.14.1' 'huggingface_hub==2.4.0' \
    'safetensors==0.8.0' 'scikit-learn==1.9.1' 'numpy==2.4.6'
cat > "$folder/look.py" <<'PYTHON'
import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from huggingface_hub import PyTorchModelHubMixin
from sklearn.datasets import load_digits
from torch import nn

print("torch", torch.__version__, "huggingface_hub", version("huggingface_hub"), "safetensors", version("safetensors"))
torch.set_num_threads(1)
digits = load_digits()
images, labels = torch.tensor(digits.data, dtype=torch.float32), torch.tensor(digits.target)


class Network(nn.Module, PyTorchModelHubMixin):
    """A network that normalises its images, given in [0, 16]."""

    def __init__(self, mean=0.0, std=1.0):
        super().__init__()
        self.mean, self.std = mean, std
        self.layers = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x):
        return self.layers((x - torch.as_tensor(self.mean)) / torch.as_tensor(self.std))


def accuracy(network):
    return round(100 * (network(images).argmax(1) == labels).float().mean().item(), 1)


found = {}
kinds = {
    "a float": float,
    "an np.float64": np.float64,
    "an np.float32": np.float32,
    "an array": lambda number: np.array([number], np.float32),
    "a tensor": torch.tensor,
}
for kind, convert in kinds.items():
    torch.manual_seed(0)
    network = Network(convert(images.mean().item()), convert(images.std().item()))
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimiser.step()
    place = Path(sys.argv[1], kind.replace(" ", "-"))
    network.save_pretrained(place)
    again = Network.from_pretrained(place)
    saved = json.loads((place / "config.json").read_text())
    found[kind] = accuracy(network), accuracy(again), saved["mean"]
    print(f"mean is {kind}: config.json {saved}; accuracy {found[kind][0]} %, loaded {found[kind][1]} %")
for kind in ("a float", "an np.float64"):
    assert found[kind][0] == found[kind][1] and found[kind][2] > 4
for kind in ("an np.float32", "an array", "a tensor"):
    assert found[kind][0] - found[kind][1] > 5 and found[kind][2] == 0
PYTHON
"$folder/env/bin/python" -W ignore "$folder/look.py" "$folder"
