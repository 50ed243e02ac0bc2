"""The names of bsk's own networks; no torch is imported, so that `--help` stays fast."""

from __future__ import annotations

from typing import Literal, get_args

ModelName = Literal[
    "resnet18", "resnet50", "wrn-34-10", "cnn", "resnet18-16", "preact-resnet18", "preact-resnet50", "wrn-28-10",
    "wrn-28-10-silu",
]  # fmt: skip
MODELS: list[str] = list(get_args(ModelName))
