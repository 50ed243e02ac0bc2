"""A trained network in the format of another tool, read back from its file and compared with bsk's own logits."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bsk.errors import InputError
from bsk.evaluation.subjects import Subject
from bsk.export.conditions import check_ending, check_installed
from bsk.models.fitting import Target
from bsk.models.layouts import original_names
from bsk.models.registry import Normalised
from bsk.models.weights import load_weights
from bsk.plugins import outside
from bsk.records import jsonl
from bsk.records.atomic import replacing

IMAGES = (8, 1)  # batch sizes of the comparison: the file must accept any
TOLERANCE = 1e-4  # of a logit, relative to the largest one if that is above 1
Run = Callable[[Tensor], Tensor]


class Whole(nn.Module):
    """A network with its normalisation, from images (N, C, H, W) in [0, 1] to logits, in plain operations only."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: Normalised) -> None:
        """Copy the network."""
        super().__init__()
        self.network = copy.deepcopy(model.network).to(memory_format=torch.contiguous_format)
        self.register_buffer("mean", model.mean.clone())
        self.register_buffer("std", model.std.clone())

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes)."""
        logits: Tensor = self.network((images - self.mean) / self.std)
        return logits


@dataclass(frozen=True)
class Form:
    """An export format.

    Attributes:
        write: writes a file.
        read: reads it back and returns a function from images to logits.
        endings: file endings.
        inside: whether the file includes the normalisation.
        packages: packages that it needs.
    """

    write: Callable[[Subject, Path], None]
    read: Callable[[Subject, Path], Run]
    endings: tuple[str, ...]
    inside: bool
    packages: tuple[str, ...] = ()


def export_network(subject: Subject, name: str, out: Path) -> dict[str, Any]:
    """Write the network of a checkpoint in one of the FORMS, and return the record.

    The file is read back and run on random images before it gets its final name.

    Raises:
        UsageError: the format needs a package that is not installed, or the ending of `out` is wrong.
        InputError: the network cannot be exported to this format, or its logits differ from bsk's own.
    """
    form = FORMS[name]
    check_ending(out, form.endings)
    check_installed(name, form.packages)
    with replacing(out) as temporary:
        with outside(f"--to {name}", "this network cannot be exported to it; try another format", InputError):
            with warnings.catch_warnings(action="ignore"):  # TorchScript is deprecated, but the user asked for it
                form.write(subject, temporary)
                run = form.read(subject, temporary)
            furthest = _furthest(subject, run)
        if not furthest <= TOLERANCE:
            found = f"the logits of the {name} file differ by {furthest:.2g}, expected at most {TOLERANCE:g}"
            raise InputError(f"{out}: {found}; nothing is written, try another format")
        sha256 = jsonl.sha256(temporary)
    return {**_described(subject, name), "out": str(out), "sha256": sha256, "n": IMAGES[0], "difference": furthest}


def _described(subject: Subject, name: str) -> dict[str, Any]:
    header = subject.header
    facts = {key: header[key] for key in ("model", "classes", "shape", "mean", "std")}
    return {
        "schema": jsonl.SCHEMA,
        "kind": "export",
        "to": name,
        "source": str(subject.path),
        "checkpoint_sha256": subject.sha256,
        **facts,
        "normalised": FORMS[name].inside or _normalises(subject),
    }


def _normalises(subject: Subject) -> bool:
    """Return whether the published network has buffers for mean and std, as DeepMind's have."""
    return str(subject.header["model"]).endswith("-silu")


def _furthest(subject: Subject, run: Run) -> float:
    """Return the largest difference from bsk's own logits, relative to the largest logit if that is above 1."""
    random = torch.Generator().manual_seed(0)
    found = 0.0
    for n in IMAGES:
        images = torch.rand(n, *subject.header["shape"], generator=random)
        with torch.no_grad():
            own, theirs = subject.model(images), run(images)
        if own.shape != theirs.shape or not theirs.isfinite().all():
            return float("inf")
        found = max(found, float((own - theirs).abs().max() / own.abs().max().clamp(min=1)))
    return found


def _model(subject: Subject) -> Normalised:
    assert isinstance(subject.model, Normalised)
    return subject.model


def _write_torch(subject: Subject, path: Path) -> None:
    """Write a state dict with the names of the published code, with mean and std if that has buffers for them."""
    model = _model(subject)
    own = model.network.state_dict()
    names = original_names(subject.header["model"], own) or {name: name for name in own}
    tensors = {names[name]: tensor.detach().contiguous() for name, tensor in own.items()}
    if _normalises(subject):
        tensors |= {"mean": model.mean[0].clone(), "std": model.std[0].clone()}
    torch.save(tensors, path)


def _read_torch(subject: Subject, path: Path) -> Run:
    """Load the file as weights of unknown origin into a zeroed copy of the network."""
    model = copy.deepcopy(_model(subject))
    own = {name: each for name, each in model.network.state_dict().items() if isinstance(each, Tensor)}
    for tensor in own.values():
        tensor.zero_()
    fit = load_weights(path, Target(subject.header["model"], own, len(subject.header["mean"]))).fit
    if fit.problems:
        raise InputError(f"{path}: {fit.problems}; train it again")
    model.network.load_state_dict(fit.tensors, strict=False)  # load_weights has checked all names
    return model


def _write_script(subject: Subject, path: Path) -> None:
    """Trace the network; TorchScript is deprecated, but C++ programs and older versions of torch read it."""
    whole = Whole(_model(subject)).eval()
    with torch.no_grad():
        traced = torch.jit.trace(whole, torch.rand(2, *subject.header["shape"]))
    torch.jit.save(traced, path)


def _read_script(subject: Subject, path: Path) -> Run:
    loaded: Run = torch.jit.load(path)
    return loaded


def _write_onnx(subject: Subject, path: Path) -> None:
    images = torch.rand(2, *subject.header["shape"])
    torch.onnx.export(
        Whole(_model(subject)).eval(),
        (images,),
        path,
        input_names=["images"],
        output_names=["logits"],
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        external_data=False,  # a single file
        verbose=False,
    )


def _read_onnx(subject: Subject, path: Path) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


FORMS = {
    "torch": Form(_write_torch, _read_torch, (".pt", ".pth"), inside=False),
    "torchscript": Form(_write_script, _read_script, (".pt", ".ts"), inside=True),
    "onnx": Form(_write_onnx, _read_onnx, (".onnx",), inside=True, packages=("onnx", "onnxscript", "onnxruntime")),
}
