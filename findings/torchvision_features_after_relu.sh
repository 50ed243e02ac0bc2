#!/bin/sh
# torchvision 0.29.1: what `create_feature_extractor` returns for a node depends on which other nodes are asked for.
#
# Expected: the node "bn1" of a ResNet is what its batch norm computes, about half of the values below 0. Observed: so
# it is if "bn1" is asked for alone. With any later node too, such as "layer4", none is below 0. The ReLUs of
# torchvision's networks work in place and overwrite the tensor that was picked; nodes after the last one asked for are
# removed, so the last one escapes. Every node directly before such a ReLU is concerned: the bn1 of each block of a
# ResNet-18, and the sums ("layer1.0.add"). Nothing raises, and the shapes are right.
#
# A feature attack, a perceptual distance, a detector of adversarial images, or a comparison of clean and adversarial
# activations at several nodes then uses rectified values. The gradient through the node is that of the ReLU too: it is
# 0 where the unit is off. Set `inplace = False` on each ReLU first: this changes no output of the network.
#
# Exits with 0 if the problem still exists, with 1 if not. Needs 6 GB of disk for torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'torch==2.14.1' 'torchvision==0.29.1' 'numpy==2.4.6'
cat > "$folder/look.py" <<'PYTHON'
import copy

import torch
import torchvision
from torchvision.models.feature_extraction import create_feature_extractor

NODES = ["bn1", "layer1.0.bn1", "layer1.0.bn2", "layer1.0.add"]


def below(values):
    return round(float((values < 0).float().mean()), 3)


torch.manual_seed(0)
model = torchvision.models.resnet18().eval()
plain = copy.deepcopy(model)
for module in plain.modules():
    if isinstance(module, torch.nn.ReLU):
        module.inplace = False
images = torch.rand(4, 3, 64, 64, requires_grad=True)
assert torch.equal(model(images), plain(images))
print("torch", torch.__version__, "torchvision", torchvision.__version__)
print("share of values below 0, in the features of torchvision's ResNet-18:")
found = {}
for node in NODES:
    alone, together, right = (
        create_feature_extractor(network, nodes)(images)[node]
        for network, nodes in ((model, [node]), (model, [node, "layer4"]), (plain, [node, "layer4"]))
    )
    found[node] = torch.equal(alone, right), torch.equal(together, right), torch.equal(together, right.relu())
    print(f"  {node}: alone {below(alone)}, with layer4 too {below(together)}, without ReLUs in place {below(right)}")
    if node == "bn1":
        gradients = [torch.autograd.grad(each.square().sum(), images)[0] for each in (together, right)]
        difference = float((gradients[0] - gradients[1]).norm() / gradients[1].norm())
        print(f"  relative difference of the gradient of its squared norm in the images: {difference:.2f}")
assert torch.equal(create_feature_extractor(plain, ["bn1", "layer4"])(images)["bn1"], model.bn1(model.conv1(images)))
assert found["layer1.0.bn2"] == (True, True, False)
assert all(found[node] == (True, False, True) for node in NODES if node != "layer1.0.bn2")
assert difference > 0.1
PYTHON
"$folder/env/bin/python" -W ignore "$folder/look.py"
