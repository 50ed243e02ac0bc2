#!/bin/sh
# torch 2.14.1: a moving average with `use_buffers=True` changes integer buffers that are constant, such as indices.
#
# `AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)` is torch's moving average of a network
# with batch norm. Expected: a buffer that never changes keeps its value. Observed: of an integer buffer b the average is
# `b * decay + b * (1 - decay)`, which rounds to just below b for some b, and is then truncated to b - 1. Of torchvision's
# Swin transformer this moves entries of `relative_position_index`, so that the averaged network adds the biases of other
# positions: 30 % of the entries with a decay of 0.9, 39 % with 0.9995, 16 % with 0.9999, none with 0.99 or 0.999. Nothing
# raises, and the averaged weights are right. With the default `use_buffers=False` such buffers are copied, but the
# statistics of batch norm are too.
#
# Exits with 0 if the problem still exists, with 1 if not. Needs 6 GB of disk for torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'torch==2.14.1' 'torchvision==0.29.1'
cat > "$folder/look.py" <<'PYTHON'
import torch
import torchvision
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn, get_ema_multi_avg_fn

INDEX = "features.1.0.attn.relative_position_index"
torch.manual_seed(0)
swin = torchvision.models.SwinTransformer(
    [2, 2], embed_dim=8, depths=[1, 1], num_heads=[1, 1], window_size=[4, 4], num_classes=10
).eval()
with torch.no_grad():  # as large as trained ones
    swin.features[1][0].attn.relative_position_bias_table.normal_()
x, index = torch.randn(8, 16, 16, 8), swin.get_buffer(INDEX).clone()
print("torch", torch.__version__, "torchvision", torchvision.__version__)
moved = {}
for decay in (0.9, 0.99, 0.999, 0.9995, 0.9999):
    for way, own in (("multi_avg_fn", get_ema_multi_avg_fn(decay)), ("avg_fn", get_ema_avg_fn(decay))):
        average = AveragedModel(swin, use_buffers=True, **{way: own})
        for _ in range(100):
            average.update_parameters(swin)  # always the same weights: the average is the network itself
        now = average.module.get_buffer(INDEX)
        moved[decay, way] = float((now != index).float().mean())
        assert ((now == index) | (now == index - 1)).all()
        with torch.no_grad():
            own, other = (model.features[1][0].attn(x) for model in (swin, average.module))
        off = float((other - own).norm() / own.norm())
        print(f"{way}, decay {decay}: {moved[decay, way]:.0%} of the indices are one lower;",
              f"the output of this layer is off by {off:.1%}")
        assert (off > 0.1) == (moved[decay, way] > 0)
for way in ("multi_avg_fn", "avg_fn"):
    assert [round(moved[decay, way], 2) for decay in (0.9, 0.99, 0.999, 0.9995, 0.9999)] == [0.30, 0, 0, 0.39, 0.16]
PYTHON
"$folder/env/bin/python" -W ignore "$folder/look.py"
