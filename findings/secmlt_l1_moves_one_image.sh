#!/bin/sh
# SecML-Torch 1.5 (secml-torch): a step of its own PGD in L1 moves one image of the batch.
#
# PGD("l1", ..., backend="native") is expected to move each image along its largest gradient entry. Observed: the
# largest entry is sought in the whole batch, so each step moves the one image that has it, and all others stay. The
# accuracy of a batch of 64 hardly falls; it depends on the batch size, and is right only for batches of 1.
#
# Exits with 0 if the problem still exists, with 1 if not. Needs 6 GB of disk for torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'torch==2.14.1' 'torchvision==0.29.1'
"$folder/env/bin/pip" install --quiet --disable-pip-version-check --no-deps 'secml-torch==1.5'
cat > "$folder/look.py" <<'PYTHON'
import torch
from secmlt.adv.evasion.pgd import PGD
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
net = nn.Sequential(nn.Flatten(), nn.Linear(192, 10)).eval()
x = torch.rand(64, 3, 8, 8)
y = net(x).argmax(1)
for batch in (64, 1):
    pgd = PGD("l1", 2.0, 10, 0.5, backend="native")
    images = torch.cat([each for each, _ in pgd(net, DataLoader(TensorDataset(x, y), batch_size=batch))])
    moved = int((images != x).flatten(1).any(1).sum())
    stand = int((net(images).argmax(1) == y).sum())
    print(f"batches of {batch}: {moved} of 64 images moved in 10 steps, {stand} stand")
    assert (moved <= 10, stand > 55) == (batch == 64, batch == 64)
PYTHON
"$folder/env/bin/python" "$folder/look.py"
