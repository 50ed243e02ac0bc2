#!/bin/sh
# torch 2.14.1: attention has no second derivative on a CPU either, except in train mode with dropout.
#
# Methods that regularise the gradient of the loss in the image (GradAlign, LLR, input gradient penalties, curvature)
# differentiate a gradient. Expected: only the fused kernels of a GPU lack this, and a CPU computes the plain formula,
# whose second derivative torch has. Observed: `scaled_dot_product_attention` has a fused kernel on CPUs as well. With
# torchvision's vision transformers the gradient with `create_graph=True` succeeds, and the backward pass through it
# raises. `nn.MultiheadAttention` raises only with `need_weights=False`, as torchvision calls it. With dropout it works
# in train mode and raises in eval mode, so that a training may run and an evaluation of the same quantity not. Within
# `sdpa_kernel(SDPBackend.MATH)` the same network works, if its forward pass is inside; the backward passes need not be.
#
# Exits with 0 if the problem still exists, with 1 if not. Needs 6 GB of disk for torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'torch==2.14.1' 'torchvision==0.29.1'
cat > "$folder/look.py" <<'PYTHON'
import contextlib

import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

torch.manual_seed(0)


class Attention(nn.Module):
    """Attention of an image's rows to each other, by torch's module."""

    def __init__(self, need_weights, dropout=0.0):
        super().__init__()
        self.layer = nn.MultiheadAttention(32, 4, dropout=dropout, batch_first=True)
        self.need_weights = need_weights

    def forward(self, x):
        rows = x[:, 0]
        return self.layer(rows, rows, rows, need_weights=self.need_weights)[0].flatten(1)[:, :10]


def second_derivative(model, inside):
    """Return what the backward pass through the gradient of the loss in the images does."""
    x = torch.rand(4, 3, 32, 32, dtype=next(model.parameters()).dtype, requires_grad=True)
    with inside:
        logits = model(x)
    (g,) = torch.autograd.grad(F.cross_entropy(logits, torch.arange(4)), x, create_graph=True)
    assert g.isfinite().all() and g.any() and g.requires_grad  # it looks differentiable
    try:
        g.square().sum().backward()
    except RuntimeError as error:
        return str(error)
    return "works"


vit = torchvision.models.VisionTransformer(32, 8, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=10)
nn.init.normal_(vit.heads.head.weight)  # which torchvision sets to zero
plain = contextlib.nullcontext
ways = {
    "VisionTransformer": (vit, plain()),
    "VisionTransformer, sdpa_kernel(MATH)": (vit, sdpa_kernel(SDPBackend.MATH)),
    "MultiheadAttention, need_weights=False": (Attention(False), plain()),
    "MultiheadAttention, need_weights=True": (Attention(True), plain()),
    "MultiheadAttention, need_weights=False, fp64": (Attention(False).double(), plain()),
    "MultiheadAttention, need_weights=False, dropout, train mode": (Attention(False, 0.1), plain()),
    "MultiheadAttention, need_weights=False, dropout, eval mode": (Attention(False, 0.1).eval(), plain()),
}
print("torch", torch.__version__, "torchvision", torchvision.__version__)
found = {way: second_derivative(*each) for way, each in ways.items()}
for way, said in found.items():
    print(f"{way}: {said}")
fails = [said != "works" for said in found.values()]
assert fails == [True, False, True, False, True, False, True]
assert all("_backward is not implemented" in said for said in found.values() if said != "works")
PYTHON
"$folder/env/bin/python" "$folder/look.py"
