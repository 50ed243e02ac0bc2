"""Images as rows of pixels: the memory layout of a channels-last image, so that conversion needs no copy."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def to_rows(images: Tensor) -> Tensor:
    """Return images (N, C, H, W) as rows (N, H * W * C) in channels-last order."""
    return images.permute(0, 2, 3, 1).flatten(1)


def to_images(rows: Tensor, shape: Sequence[int]) -> Tensor:
    """Return rows (N, H * W * C) as images (N, C, H, W), where `shape` is (..., C, H, W)."""
    channels, height, width = shape[-3:]
    return rows.view(-1, height, width, channels).permute(0, 3, 1, 2)
