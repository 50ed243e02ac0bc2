"""Adversarial images from a file of `bsk attack`, evaluated on another network than the one they were made for."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bsk.attacks.outcome import Outcome
from bsk.attacks.outside import distance, is_outside
from bsk.attacks.registry import Attack, Stage, natural
from bsk.data.archive import open_tree
from bsk.data.pictures import Shape, decode, decode_all
from bsk.data.unchanged import Unchanged
from bsk.errors import InputError
from bsk.perturb.ascent import Model
from bsk.perturb.draws import ExampleDraws
from bsk.records import checkpoints
from bsk.records import jsonl as records
from bsk.records.fields import FieldError, convert
from bsk.records.pictures import ARRAYS, INDEX, TENSORS
from bsk.records.schema import AttackRecord

KIND = "attack"  # the kind in the header of a file of bsk attack
_AGAIN = "write it again with bsk attack"


@dataclass(frozen=True)
class Saved:
    """The images of a file or folder, and its header.

    Attributes:
        path: F.safetensors, F.npz or a folder.
        images: (N, C, H, W) fp32 in [0, 1].
        labels: (N,).
        place: the row of each image, by its index in the data's source.
        header: the record of the attack that made them.
        sha256: checksum of the file, or of the index and the pixels of a folder.
        file: tells whether a file from which the images are mapped is still the same.
    """

    path: Path
    images: Tensor
    labels: Tensor
    place: dict[int, int]
    header: dict[str, Any]
    sha256: str
    file: Unchanged | None = None

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
        parameters = {"norm": self.norm, "images": self.sha256, "source": source}
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
            InputError: an image is missing, has another label, or is not in the ball; or the file has changed.
        """
        if self.file is not None:
            self.file.check_mapped()
        for each, label in zip(index, y.tolist(), strict=True):
            if each not in self.place or int(self.labels[self.place[each]]) != label:
                found = f"image {each} of the data" + (" with this label" if each in self.place else "")
                raise InputError(f"{self.path}: no {found}; use the data and --limit it was made with")
        if self.images.shape[1:] != x.shape[1:]:
            found = f"images {tuple(self.images.shape[1:])}, the data has {tuple(x.shape[1:])}"
            raise InputError(f"{self.path}: {found}; use the data it was made with")
        x_adv = self.images[[self.place[each] for each in index]].to(x)
        away = distance(x_adv, x, norm)
        if is_outside(away, eps, norm):
            found = f"an image is {away:.6g} from the clean one, beyond eps {eps:.6g} ({norm})"
            raise InputError(f"{self.path}: {found}; use the data and --eps it was made with")
        return natural(model, x_adv, y, draws, eps=eps)


def saved_images(path: Path) -> Saved:
    """Return the images that `bsk attack` wrote to F.safetensors, F.npz or a folder of PNG files.

    Raises:
        InputError: the file or folder is missing, corrupt or of another kind, or its images are not in [0, 1].
    """
    file = None
    if path.is_dir():
        tensors, header, checksum = _folder(path)
    elif path.exists() and path.suffix not in (TENSORS, ARRAYS):
        raise InputError(f"{path}: expected F.safetensors, F.npz or a folder of bsk attack")
    else:
        tensors, header = _arrays(path) if path.suffix == ARRAYS else checkpoints.load(path, KIND)
        checksum = records.sha256(path)
        if path.suffix == TENSORS:
            file = Unchanged(path, partial(str, checksum), partial(records.sha256, path))
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
    if record.n != len(images):
        raise InputError(f"{path}: has {len(images)} images, its header says {record.n}; {_AGAIN}")
    for name, each in (("labels", labels), ("index", index)):
        if each.dtype != torch.int64 or each.shape != images.shape[:1] or not len(each):
            raise InputError(f"{path}: expected {name} ({len(images)},), at least one integer; {_AGAIN}")
    places = {each: row for row, each in enumerate(index.tolist())}
    return Saved(path, images, labels, places, header, checksum, file)


def _folder(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """Return the tensors, the record and the checksum of a folder of PNG files and their index."""
    if not (path / INDEX).is_file():
        raise InputError(f"{path}: no {INDEX}, expected a folder of bsk attack; {_AGAIN}")
    with open_tree(path) as tree:
        listed = tree.read(INDEX)
        record, *lines = [*records.parse(listed.splitlines(keepends=True), tree.where(INDEX))] or [{}]
        names = [str(line.get("file")) for line in lines]
        missing = next((name for name in names if name not in tree.sizes), None if names else "an image")
        if missing is not None:
            raise InputError(f"{path}: lacks {missing:.80} of its {INDEX}; {_AGAIN}")
        _, height, width = decode(tree, names[0], shape=None).shape
        pixels = decode_all(tree, names, Shape(height, width, advice=_AGAIN))
    numbers = {name: [line.get(name) for line in lines] for name in ("labels", "index")}
    if not all(type(each) is int and 0 <= each < 2**63 for column in numbers.values() for each in column):
        raise InputError(f"{path}: {INDEX} lacks labels or index of an image; {_AGAIN}")
    tensors = {name: torch.tensor(column) for name, column in numbers.items()}
    tensors["images"] = torch.from_numpy(pixels).float() / 255
    return tensors, record, hashlib.sha256(listed + pixels.tobytes()).hexdigest()


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
