#!/bin/sh
# SecML-Torch 1.5 (secml-torch): PGD by its default backend attacks a network without its preprocessing.
#
# BasePyTorchClassifier(net, preprocessing=...) predicts with the preprocessing, such as a normalisation. PGD of images
# in [0, 1] is expected to attack what predicts. Observed: the backends "native" and "advlib" do; the default one,
# "foolbox", attacks net alone. Its adversarial images are those of a classifier without preprocessing, so a network
# for BGR inputs from 0 to 255 seems robust. Nothing warns. Make the preprocessing a part of the network instead.
#
# Exits with 0 if the problem still exists, with 1 if not. Needs 6 GB of disk for torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'torch==2.14.1' 'torchvision==0.29.1'
"$folder/env/bin/pip" install --quiet --disable-pip-version-check --no-deps 'secml-torch==1.5' 'foolbox==3.3.4' 'eagerpy==0.30.0'
"$folder/env/bin/pip" install --quiet --disable-pip-version-check numpy scipy requests GitPython typing-extensions
cat > "$folder/look.py" <<'PYTHON'
import torch
from secmlt.adv.evasion.pgd import PGD
from secmlt.metrics.classification import Accuracy
from secmlt.models.pytorch.base_pytorch_nn import BasePyTorchClassifier
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Caffe(nn.Module):
    def forward(self, x):
        return 255 * x.flip(1)  # from RGB in [0, 1] to BGR in [0, 255]


torch.manual_seed(0)
net = nn.Sequential(nn.Flatten(), nn.Linear(192, 64), nn.ReLU(), nn.Linear(64, 10)).eval()
with torch.no_grad():
    net[1].weight /= 100  # for inputs from 0 to 255
x = torch.rand(64, 3, 8, 8)
whole = nn.Sequential(Caffe(), net).eval()
outside = BasePyTorchClassifier(net, preprocessing=Caffe())
bare = BasePyTorchClassifier(net)
y = outside.predict(x)
clean = DataLoader(TensorDataset(x, y), batch_size=64)
for backend in ("foolbox", "native"):
    pgd = PGD("linf", 8 / 255, 20, 2 / 255, backend=backend)
    found = {name: pgd(model, clean) for name, model in (("outside", outside), ("inside", whole), ("none", bare))}
    left = {name: Accuracy()(outside, found[name]).item() for name in ("outside", "inside")}
    same = torch.equal(next(iter(found["outside"]))[0], next(iter(found["none"]))[0])
    print(f"{backend}: accuracy {left['outside']:.2f} with preprocessing outside the network, {left['inside']:.2f} inside;")
    print(f"  adversarial images are those of the network without preprocessing: {same}")
    assert same == (backend == "foolbox")
    assert (left["outside"] > left["inside"] + 0.2) == (backend == "foolbox")
PYTHON
"$folder/env/bin/python" "$folder/look.py"
