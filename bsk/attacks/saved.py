"""Adversarial images from a file of `bsk attack`, evaluated on another network than the one they were made for."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bsk.attacks.outcome import Outcome
from bsk.attacks.outside import ROUNDING
from bsk.attacks.registry import Attack, Stage, natural
from bsk.errors import InputError
from bsk.perturb.ascent import Model
from bsk.perturb.ball import length
from bsk.perturb.draws import ExampleDraws
from bsk.records import checkpoints
from bsk.records import jsonl as records
from bsk.records.fields import FieldError, convert
from bsk.records.schema import AttackRecord

KIND = "attack"  # the kind in the header of a file of bsk attack
_AGAIN = "write it again with bsk attack"


@dataclass(frozen=True)
class Saved:
    """The images of a file, and its header.

    Attributes:
        path: F.safetensors.
        images: (N, C, H, W) fp32 in [0, 1].
        labels: (N,).
        place: the row of each image, by its index in the data's source.
        header: the record of the attack that made them.
    """

    path: Path
    images: Tensor
    labels: Tensor
    place: dict[int, int]
    header: dict[str, Any]

    @property
    def norm(self) -> str:
        """The norm of the ball."""
        parameters = self.header.get("attack_parameters") or {}
        nested = (each.get("norm") for each in parameters.values() if isinstance(each, dict))
        return str(parameters.get("norm") or next(filter(None, nested), "linf"))

    def attack(self) -> Attack:
        """Return an attack that uses the saved images instead of searching; its name is like "pgd-100@bs_seed-1"."""
        said = self.header
        source = {"attack": said["attack"], "attack_parameters": said.get("attack_parameters"), "eps": said["eps"]}
        source |= {name: said.get(name) for name in ("checkpoint", "checkpoint_sha256", "method")}
        name = f"{said['attack']}@{Path(str(said['checkpoint'])).stem}"
        parameters = {"norm": self.norm, "images": records.sha256(self.path), "source": source}
        return Attack(name, (Stage(name, self, parameters, by_index=True),))

    def __call__(
        self,
        model: Model,
        x: Tensor,
        y: Tensor,
        draws: ExampleDraws,
        *,
        eps: float,
        norm: str,
        index: list[int],
        **said: Any,
    ) -> Outcome:
        """Judge the saved image of each image x (N, C, H, W); `index` are their indices in the data's source.

        Raises:
            InputError: an image is missing, has another label, or is not in the ball.
        """
        for each, label in zip(index, y.tolist(), strict=True):
            if each not in self.place or int(self.labels[self.place[each]]) != label:
                found = f"image {each} of the data" + (" with this label" if each in self.place else "")
                raise InputError(f"{self.path}: no {found}; use the data and --limit it was made with")
        if self.images.shape[1:] != x.shape[1:]:
            found = f"images {tuple(self.images.shape[1:])}, the data has {tuple(x.shape[1:])}"
            raise InputError(f"{self.path}: {found}; use the data it was made with")
        x_adv = self.images[[self.place[each] for each in index]].to(x)
        away = float(length(x_adv - x, norm).max())
        if away > eps * (1 + ROUNDING) + ROUNDING:
            found = f"an image is {away:.6g} from the clean one, beyond eps {eps:.6g} ({norm})"
            raise InputError(f"{self.path}: {found}; use the data and --eps it was made with")
        return natural(model, x_adv, y, draws, eps=eps)


def saved_images(path: Path) -> Saved:
    """Return the images of a file written by `bsk attack`, F.safetensors or F.npz.

    Raises:
        InputError: the file is missing, corrupt or of another kind, or its images are not in [0, 1].
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder; write F.safetensors or F.npz with bsk attack")
    tensors, header = _arrays(path) if path.suffix == ".npz" else checkpoints.load(path, KIND)
    try:
        record = convert({key: value for key, value in header.items() if key != "kind"}, AttackRecord)
    except FieldError as error:
        found = f"{error.place} is {error.found!r:.40}, expected {error.expected}"
        raise InputError(f"{path}: its header: {found}; {_AGAIN}") from error
    if record.eps is None:
        raise InputError(f"{path}: its header lacks eps; {_AGAIN}")
    images, labels, index = (tensors.get(name, torch.empty(0)) for name in ("images", "labels", "index"))
    if images.dim() != 4 or images.dtype != torch.float32 or not bool(((images >= 0) & (images <= 1)).all()):
        raise InputError(f"{path}: expected fp32 images (N, C, H, W) in [0, 1]; {_AGAIN}")
    for name, each in (("labels", labels), ("index", index)):
        if each.dtype != torch.int64 or each.shape != images.shape[:1] or not len(each):
            raise InputError(f"{path}: expected {name} ({len(images)},), at least one integer; {_AGAIN}")
    return Saved(path, images, labels, {each: row for row, each in enumerate(index.tolist())}, header)


def _arrays(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the record of F.npz, with 8-bit images converted to fp32 in [0, 1]."""
    try:
        with np.load(path, allow_pickle=False) as file:
            held = {name: file[name] for name in ("images", "labels", "index", "record")}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not an .npz of bsk attack ({str(error)[:60]}); {_AGAIN}") from error
    record = next(records.parse([str(held.pop("record")).encode() + b"\n"], f"{path}: record"), {})
    tensors = {name: torch.from_numpy(each) for name, each in held.items()}
    if tensors["images"].dtype == torch.uint8:
        tensors["images"] = tensors["images"].float() / 255
    return tensors, record
