#!/bin/sh
# safetensors 0.8.0: tensors that load_file has returned change when the file is written to.
#
# A loaded tensor is expected to be a copy, as that of torch.load and that of safetensors.numpy is. Observed: tensors of
# safetensors.torch.load_file, and those of safe_open with framework "pt", are mapped from the file, also those that have
# been read before. save_file puts a new file in place of the old one and changes nothing. But cp, scp and
# shutil.copyfile write into the file, and then the tensors are those of the new contents: the weights from which a
# distance is measured, an average, the images of a running training. load_state_dict copies, unless with assign=True:
# then the network itself becomes another one. Nothing raises. Call clone(), and copy to a new name that is then renamed.
#
# Exits with 0 if the problem still exists, with 1 if not. Needs 6 GB of disk for torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'torch==2.14.1' 'safetensors==0.8.0' 'numpy==2.4.6'
cat > "$folder/look.py" <<'PYTHON'
import shutil
import sys
from pathlib import Path

import safetensors.numpy
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

folder = Path(sys.argv[1])


def opened(path):
    with safe_open(path, "pt") as file:
        return file.get_tensor("weight")


def assigned(path):
    layer = nn.Linear(100, 100, bias=False)
    layer.load_state_dict(load_file(path), assign=True)
    return layer.weight.detach()


def copied(path):
    layer = nn.Linear(100, 100, bias=False)
    layer.load_state_dict(load_file(path))
    return layer.weight.detach()


ways = {
    "load_file": lambda path: load_file(path)["weight"],
    "safe_open": opened,
    "load_state_dict(assign=True)": assigned,
    "load_state_dict": copied,
    "safetensors.numpy": lambda path: safetensors.numpy.load_file(path)["weight"],
    "torch.load": lambda path: torch.load(path)["weight"],
}
found = {}
for name, read in ways.items():
    save = torch.save if name == "torch.load" else save_file
    best, other = folder / "best", folder / "other"
    save({"weight": torch.zeros(100, 100)}, best)
    save({"weight": torch.ones(100, 100)}, other)
    weight = read(best)
    assert weight.sum() == 0
    shutil.copyfile(other, best)
    copy = float(weight.sum() / 10_000)
    save({"weight": torch.zeros(100, 100)}, best)
    weight = read(best)
    save({"weight": torch.ones(100, 100)}, best)
    found[name] = copy, float(weight.sum() / 10_000)
    print(f"{name}: zeros, and after ones are copied over the file {copy:g}, after they are saved there {found[name][1]:g}")
assert [copy for copy, _ in found.values()] == [1, 1, 1, 0, 0, 0]
assert {saved for _, saved in found.values()} == {0}
PYTHON
"$folder/env/bin/python" "$folder/look.py" "$folder"
