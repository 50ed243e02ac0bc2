#!/bin/sh
# torch 2.14.1: with activation checkpointing, batch norm counts each batch twice.
#
# `torch.utils.checkpoint` recomputes a block in the backward pass to save memory. It restores the random numbers, and
# is expected to leave no other trace. Observed: the recomputation is a second forward pass in train mode, so running
# statistics move twice per batch, as with momentum 0.19 in place of 0.1. Weights and losses of the training are equal
# to the bit, therefore nothing is noticed before the network is evaluated: its statistics, and with them its accuracy
# and its checkpoint, differ. Single-step adversarial training perturbs in train mode, with one more backward pass: it
# moves them four times per update instead of twice. A gradient with respect to the images suffices.
#
# Exits with 0 if the problem still exists, with 1 if not. Needs 6 GB of disk for torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'torch==2.14.1' 'numpy==2.4.6'
cat > "$folder/look.py" <<'PYTHON'
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


class Net(nn.Module):
    """A block with batch norm, recomputed or not, and a linear layer."""

    def __init__(self, recompute):
        super().__init__()
        torch.manual_seed(0)
        self.recompute = recompute
        self.block = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.last = nn.Linear(8 * 64, 4)

    def forward(self, x):
        seen = checkpoint(self.block, x, use_reentrant=False) if self.recompute else self.block(x)
        return self.last(seen.flatten(1))


def trained(recompute, adversarial):
    """Return the losses of ten updates, and the network."""
    net, losses = Net(recompute), []
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    for x, y in batches:
        if adversarial:  # FGSM with a random start, in train mode
            leaf = (x + 0.1 * (2 * torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) - 1)).requires_grad_()
            (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(net(leaf), y), leaf)
            x = (leaf.detach() + 0.1 * gradient.sign()).clamp(0, 1)
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses, net


torch.manual_seed(1)
batches = [(torch.rand(16, 1, 8, 8), torch.randint(0, 4, (16,))) for _ in range(10)]
for adversarial in (False, True):
    (losses, plain), (same, saving) = (trained(recompute, adversarial) for recompute in (False, True))
    seen = [net.block[1].num_batches_tracked.item() for net in (plain, saving)]
    means = [net.block[1].running_mean for net in (plain, saving)]
    apart = (means[0] - means[1]).abs().max().item()
    with torch.no_grad():
        logits = [net.eval()(batches[0][0]) for net in (plain, saving)]
    words = "fast adversarial" if adversarial else "standard"
    print(f"{words} training, 10 updates: {seen[0]} batches counted, {seen[1]} with checkpointing; ", end="")
    print(f"means differ by up to {apart:.4f}, logits by {(logits[0] - logits[1]).abs().max():.4f}")
    assert losses == same and all(a.equal(b) for a, b in zip(plain.parameters(), saving.parameters(), strict=True))
    assert seen == ([20, 40] if adversarial else [10, 20]) and apart > 1e-3
PYTHON
"$folder/env/bin/python" "$folder/look.py"
