"""Batches of training images: stored as uint8 on the device, where they are cropped, flipped and scaled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bsk.data.extra import Extra, mixed_order
from bsk.errors import UsageError
from bsk.perturb.draws import generator

AUGMENTATIONS = ("crop-flip", "flip", "none")
PADDING = 4  # black pixels on each side before a crop. Source: the authors' data_loader.py


@dataclass(frozen=True)
class Share:
    """The part of each batch that this process takes: part `rank` of `world` equal parts."""

    rank: int = 0
    world: int = 1

    def of(self, rows: Tensor) -> Tensor:
        """Return this process's part of rows (N, ...); the sizes of parts differ by at most one row."""
        return rows.tensor_split(self.world)[self.rank]

    def first(self, total: int) -> int:
        """Return the position of this process's first row among `total` rows."""
        return self.rank * (total // self.world) + min(self.rank, total % self.world)


WHOLE = Share()


@dataclass(frozen=True)
class Batch:
    """A batch, or this process's part of it.

    Attributes:
        x: images (N, C, H, W), fp32 in [0, 1], in channels-last memory format.
        y: labels (N,).
        rows: positions of the images in the training set, (N,).
        total: images of the batch in all processes.
    """

    x: Tensor
    y: Tensor
    rows: Tensor
    total: int


class Loader:
    """All training images as uint8 on the device, in batches whose order changes each epoch.

    Order, crops and flips depend on (seed, epoch) alone: they are the same on every device, for any number of
    processes, and after a resume.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        batch_size: int,
        augment: str,
        seed: int,
        device: torch.device,
        share: Share = WHOLE,
        extra: Extra | None = None,
    ) -> None:
        """Copy images (N, C, H, W) uint8 and labels (N,) int64 to the device; `augment` is one of AUGMENTATIONS.

        With `extra`, a share of each batch is extra images; an epoch still has N images in total.

        Raises:
            UsageError: a batch or the dataset has fewer images than there are processes.
        """
        if min(batch_size, len(labels)) < share.world:
            raise UsageError(f"--batch-size {batch_size}: must be at least the number of processes, {share.world}")
        self.batch_size, self.augment, self.seed, self.share = batch_size, augment, seed, share
        self.height, self.width = images.shape[2:]
        pad = PADDING if augment == "crop-flip" else 0
        self.images_per_epoch, self.extra = len(labels), extra
        if extra is not None:  # their rows follow the others
            images, labels = torch.cat(_alike(images, extra.images)), torch.cat([labels, extra.labels])
        self.images = F.pad(images.to(device), [pad] * 4)
        self.labels = labels.to(device)
        self.offsets = 2 * pad + 1

    def __len__(self) -> int:
        """Return the number of batches in an epoch; the last may be smaller but has an image for every process."""
        whole, rest = divmod(self.images_per_epoch, self.batch_size)
        return whole + (rest >= self.share.world)

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """Yield this process's part of each batch of an epoch, after the first `skip` batches."""
        n, random, device = self.images_per_epoch, generator(self.seed, "epoch", epoch), self.labels.device
        order = torch.randperm(n, generator=random) if self.extra is None else self._mixed(epoch)
        order = order.to(device)
        top, left = torch.randint(0, self.offsets, (2, n), generator=random).to(device)
        flip = (torch.randint(0, 2, (n,), generator=random) == 1).to(device)
        for i in range(skip, len(self)):
            mine = slice(i * self.batch_size, (i + 1) * self.batch_size)
            rows = order[mine]
            cut = [self.share.of(each) for each in (rows, top[mine], left[mine], flip[mine])]
            yield Batch(self._images(*cut), self.labels[cut[0]], cut[0], len(rows))

    def _mixed(self, epoch: int) -> Tensor:
        assert self.extra is not None
        n, extra = self.images_per_epoch, self.extra
        sizes = [min(self.batch_size, n - start) for start in range(0, n, self.batch_size)]
        return mixed_order(n, len(extra.labels), sizes, extra.fraction, self.seed, epoch)

    def _images(self, rows: Tensor, top: Tensor, left: Tensor, flip: Tensor) -> Tensor:
        if self.augment == "crop-flip":
            windows = self.images.unfold(2, self.height, 1).unfold(3, self.width, 1)
            images = windows[rows, :, top, left]
        else:
            images = self.images[rows]
        if self.augment != "none":
            images = torch.where(flip[:, None, None, None], images.flip(3), images)
        return to_unit(images)


def _alike(images: Tensor, others: Tensor) -> list[Tensor]:
    """Return both as they are if their types agree, else both as fp32 in [0, 1]."""
    if images.dtype == others.dtype:
        return [images, others]
    return [each if each.is_floating_point() else each.float() / 255 for each in (images, others)]


def to_unit(images: Tensor) -> Tensor:
    """Return uint8 images (N, C, H, W) as fp32 in [0, 1], in channels-last memory; floats are copied unscaled."""
    if images.is_floating_point():
        return images.to(torch.float32, memory_format=torch.channels_last, copy=True)
    return images.to(torch.float32, memory_format=torch.channels_last).div_(255.0)
