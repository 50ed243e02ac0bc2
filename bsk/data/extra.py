"""Extra training images from a second prepared file, as a fixed share of each batch (`--extra`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bsk.data.order import bytes_of, image_hashes
from bsk.data.store import DataFile
from bsk.errors import InputError
from bsk.perturb.draws import generator

FRACTION = 0.5  # Source: Carmon et al. (2019), section 4: half of each batch is pseudo-labelled


@dataclass(frozen=True)
class Extra:
    """Extra training images.

    Attributes:
        images: (M, C, H, W) uint8.
        labels: (M,) int64.
        fraction: their share of each batch.
        record: path, name and `sha256` of their file, the number of images used, and of those left out because they
            are also held-out images.
    """

    images: Tensor
    labels: Tensor
    fraction: float
    record: dict[str, Any]


def open_extra(extra: DataFile, fraction: float, data: DataFile, say: Callable[[str], None]) -> Extra:
    """Return the train split of a prepared file as extra images for training on `data`.

    An image that is identical to one in the val or test split of `data` is left out, so that those stay held out.

    Raises:
        InputError: no images are left, or classes or sizes differ from those of `data`.
    """
    split = extra.split("train")
    shape, wanted = split.shape, data.stream("train").shape
    if len(extra.classes) != len(data.classes):
        found = f"{len(extra.classes)} classes, but the data has {len(data.classes)}"
        raise InputError(f"--extra {extra.path}: {found}; give images of the same classes")
    for place, (name, other) in enumerate(zip(extra.classes, data.classes, strict=True)):
        if name != other:
            found = f"class {place} is {name!r}, but {other!r} in the data"
            raise InputError(f"--extra {extra.path}: {found}; give the same class names in the same order")
    if shape != wanted:
        step = "prepare it with that --size" if shape[0] == wanted[0] else "give images with as many channels"
        raise InputError(f"--extra {extra.path}: images {shape}, but the data has {wanted}; {step}")
    kept = _not_held_out(split.images, data)
    record = {"path": str(extra.path), "name": extra.name, "sha256": extra.sha256, "images": len(kept)}
    if len(kept) < len(split.labels):
        record["left_out"] = len(split.labels) - len(kept)
        say(f"--extra {extra.path}: {record['left_out']} images left out because val or test of the data has them too")
    if not len(kept):
        raise InputError(f"--extra {extra.path}: no image of its train split is left; give other images")
    return Extra(split.images[kept], split.labels[kept], fraction, record)


def _not_held_out(images: Tensor, data: DataFile) -> Tensor:
    """Return the positions of the images that are not in the val or test split, (K,)."""
    held_out: set[bytes] = set()
    for name in ("val", "test"):
        if data.counts[name]:
            held_out.update(image_hashes(bytes_of(data.split(name).images.numpy())))
    found = image_hashes(bytes_of(images.numpy()))
    return torch.tensor([row for row, each in enumerate(found) if each not in held_out], dtype=torch.int64)


def mixed_order(images: int, extra: int, batches: Sequence[int], fraction: float, seed: int, epoch: int) -> Tensor:
    """Return the images of all batches of an epoch, concatenated, (sum(batches),).

    Numbers below `images` are regular training images, the others extra ones. Each kind is drawn without replacement
    until all were used, then again in a new order, continuing across epochs.

    Args:
        images: number of regular images.
        extra: number of extra images.
        batches: size of each batch of an epoch.
        fraction: share of extra images in each batch, rounded to whole images.
        seed: of the orders.
        epoch: from 0.
    """
    others = [round(fraction * size) for size in batches]
    owns = [size - other for size, other in zip(batches, others, strict=True)]
    own = _drawn(images, epoch * sum(owns), sum(owns), seed, "own").split(owns)
    other = _drawn(extra, epoch * sum(others), sum(others), seed, "extra").add(images).split(others)
    random = generator(seed, "mixed", epoch)
    pairs = zip(own, other, strict=True)
    return torch.cat([(both := torch.cat(pair))[torch.randperm(len(both), generator=random)] for pair in pairs])


def _drawn(images: int, start: int, count: int, seed: int, kind: str) -> Tensor:
    """Return positions start to start + count, (count,), of a sequence of random orders of all images."""
    first, last = start // images, max(start, start + count - 1) // images
    orders = [torch.randperm(images, generator=generator(seed, kind, i)) for i in range(first, last + 1)]
    return torch.cat(orders)[start - first * images :][:count]
