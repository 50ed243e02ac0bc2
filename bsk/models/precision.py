"""The precision of a network's passes; losses and weights are always fp32."""

from __future__ import annotations

import torch
from torch import Tensor

from bsk.perturb.ascent import Model

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def in_precision(model: Model, precision: str) -> Model:
    """Return the model with its passes in a precision of PRECISIONS; logits come back as they are."""
    if precision == "fp32":
        return model

    def forward(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, dtype=PRECISIONS[precision]):
            return model(x)

    return forward
