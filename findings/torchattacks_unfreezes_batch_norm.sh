#!/bin/sh
# torchattacks 3.5.1: after an attack during training, frozen batch norms are in train mode.
#
# Whoever fine-tunes a network with frozen batch norms calls net.train() and then eval() on each batch norm. An attack
# puts the network in eval mode, and is expected to restore the mode of every layer. Observed: it remembers the mode of
# the whole network alone, and ends with net.train(). From the first attack on, batch norm normalises by the batch and
# its running statistics move. Nothing raises, and the loss falls. Set the modes again after each attack.
#
# Exits with 0 if the problem still exists, with 1 if not. Needs 6 GB of disk for torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'torch==2.14.1' 'torchvision==0.29.1'
"$folder/env/bin/pip" install --quiet --disable-pip-version-check requests scipy tqdm
"$folder/env/bin/pip" install --quiet --disable-pip-version-check --no-deps 'torchattacks==3.5.1'
cat > "$folder/look.py" <<'PYTHON'
import copy

import torch
import torchattacks
import torchvision
from torch import nn


def fine_tuned(attacks):
    """Return a network after one update with frozen batch norms, and the statistics of the first one."""
    net = copy.deepcopy(pretrained)
    net.train()
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()
    images = torchattacks.FGSM(net, eps=8 / 255)(x, y) if attacks else x
    optimiser = torch.optim.SGD(net.parameters(), lr=0.01)
    nn.functional.cross_entropy(net(images), y).backward()
    optimiser.step()
    return net.bn1.training, net.bn1.running_mean.clone(), net.bn1.num_batches_tracked.item()


torch.manual_seed(0)
pretrained = torchvision.models.resnet18(num_classes=10)
x, y = torch.rand(16, 3, 32, 32), torch.arange(16) % 10
for attacks in (False, True):
    training, mean, batches = fine_tuned(attacks)
    moved = (mean - pretrained.bn1.running_mean).abs().max().item()
    words = "after FGSM" if attacks else "no attack"
    print(f"{words}: batch norm in {'train' if training else 'eval'} mode, {batches} batches seen, mean moved by {moved:.4f}")
    assert (training, batches > 0, moved > 0.001) == (attacks, attacks, attacks)
PYTHON
"$folder/env/bin/python" "$folder/look.py"
