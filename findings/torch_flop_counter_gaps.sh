#!/bin/sh
# torch 2.14.1: `FlopCounterMode` counts no attention on a CPU, and too much for the gradient of grouped convolutions.
#
# `torch.utils.flop_counter` counts the operations that run. Expected: a forward pass of a network counts the same
# however it is called, and forward and backward together three times as much. Observed on a CPU:
#  - `scaled_dot_product_attention` counts 0. Its kernel for CPUs is not in the counter's table; CUDA's are.
#  - In eval mode within `no_grad` or `inference_mode`, `nn.MultiheadAttention` is a single operation. It counts 0,
#    with its four linear layers. torchvision's ViT-B/16 lacks a third of its operations, `nn.TransformerEncoder` all.
#  - The gradient of the weights of a grouped convolution counts as if there were no groups. Forward and backward of 32
#    groups count 34 times the forward pass, those of MobileNetV2 20 times, of a ResNeXt-50 5 times.
# Nothing warns. Ordinary convolutions are right, so that a check with a ResNet-18 finds nothing.
#
# Training methods and networks are compared by such costs. Without gradients a pass of a vision transformer seems a
# third cheaper than the same pass in an attack. A training step of MobileNetV2 seems to cost more than one of
# ResNet-18, though its forward pass costs a sixth. Within `sdpa_kernel(SDPBackend.MATH)` and with gradients attention
# is counted.
# The first of the three is issue 195460 of pytorch, of August 2026.
#
# Exits with 0 if the problem still exists, with 1 if not. Needs 6 GB of disk for torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'torch==2.14.1' 'torchvision==0.29.1' 'numpy==2.4.6'
cat > "$folder/look.py" <<'PYTHON'
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def count(work):
    """Return the floating-point operations that torch counts while `work` runs."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def step(model, x):
    model(x).sum().backward()


print("torch", torch.__version__, "torchvision", torchvision.__version__)
q = torch.randn(1, 12, 197, 64)
products = 2 * 2 * 12 * 197 * 197 * 64
fused = count(lambda: F.scaled_dot_product_attention(q, q, q))
with sdpa_kernel(SDPBackend.MATH):
    plain = count(lambda: F.scaled_dot_product_attention(q, q, q))
print(f"attention: {fused} by the CPU's kernel, {plain} by the plain formula, two products have {products}")

image = torch.randn(1, 3, 224, 224)
vit = torchvision.models.vit_b_16().eval()
with sdpa_kernel(SDPBackend.MATH):
    every = count(lambda: vit(image))
with_gradient = count(lambda: vit(image))
with torch.no_grad():
    without = count(lambda: vit(image))
print(f"vit_b_16: {every:.3g} by the plain formula, {with_gradient:.3g} by default, {without:.3g} within no_grad")

encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(64, 4, 128, batch_first=True), 2).eval()
tokens = torch.randn(1, 10, 64)
encoder_with = count(lambda: encoder(tokens))
with torch.no_grad():
    encoder_without = count(lambda: encoder(tokens))
print(f"TransformerEncoder: {encoder_with}, {encoder_without} within no_grad")

ratios = {}
for groups in (1, 4, 32):
    layer, x = nn.Conv2d(32, 32, 3, padding=1, groups=groups), torch.randn(1, 32, 8, 8, requires_grad=True)
    ratios[groups] = count(lambda: step(layer, x)) / count(lambda: layer(x))
    print(f"a convolution in {groups} groups: forward and backward count {ratios[groups]:.0f} times the forward pass")
networks = {}
for name in ("resnet18", "mobilenet_v2", "resnext50_32x4d"):
    model, x = torchvision.models.get_model(name), torch.randn(2, 3, 64, 64)
    networks[name] = count(lambda: model(x)), count(lambda: step(model, x))
    print(f"{name}: forward {networks[name][0]:.3g}, forward and backward {networks[name][1]:.3g}")
assert (fused, plain) == (0, products)
assert without < 0.66 * every and without < 0.9 * with_gradient < with_gradient < every
assert encoder_with > 0 and encoder_without == 0
resnet, mobile = networks["resnet18"], networks["mobilenet_v2"]
assert ratios == {1: 3, 4: 6, 32: 34} and resnet[1] < 3 * resnet[0]
assert mobile[0] < resnet[0] / 5 and mobile[1] > resnet[1]
PYTHON
"$folder/env/bin/python" -W ignore "$folder/look.py"
