"""The parts of situations by kind, the plain one first, with the messages allowed instead of the plain result."""

from __future__ import annotations

import argparse
import gzip
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from torture.networks import MEAN, MODES, OUTPUTS, STD, WRAPPERS, build, scripted

State = dict[str, Tensor]
Parts = Mapping[str, str]
_BLIND, _SHAPE, _UNFIT = "no gradient", r"expected logits", "does not fit"
_SAFE, _PLAIN = "holds more than tensors", "expected tensors by name"
FLAGS = ["--mean", str(MEAN), "--std", str(STD)]

# kind -> part -> regular expression of the messages allowed with, or instead of, a different result; "" allows none.
MAY: dict[str, dict[str, str]] = {
    "wrapper": dict.fromkeys(WRAPPERS, "")
    | dict.fromkeys(("black box", "no_grad", "inference mode", "through numpy", "without gradients, later"), _BLIND)
    | {
        "autocast": "half precision",
        "nan gradient": "gradient is NaN",
        "rounds its input": "gradient is|no gradient|Square fools",
        "grows rows": _SHAPE,
        "leans on the batch": "depends on the rest of the batch",
        "random": "output is random",
        "counts": "change during",
        "raises later": "KeyError: 'lookup'",
        "leaves": "SystemExit: 0",
        "out of memory": "out of memory; lower",
        "reads flags": "SystemExit: 2",
        "averaged": _UNFIT,
        "frozen": "its loss has no gradient",
    },
    "mode": dict.fromkeys(MODES, "")
    | {
        "dropout, always": "output is random",
        "stubborn": "stays in training mode after eval",
        "awake": "change during|depends on the rest of the batch",
        "statistics of the batch": f"depends on the rest of the batch|{_UNFIT}",
    },
    "output": dict.fromkeys(OUTPUTS, "")
    | {"tiny": "misses"}
    | dict.fromkeys(("tuple", "list", "dict", "labels", "planes", "one more", "numpy"), _SHAPE)
    | dict.fromkeys(("half", "bfloat16"), "half precision")
    | {
        "softmax": "probabilities",
        "sigmoid": "gradient is zero|misses",
        "decisions": f"{_BLIND}|probabilities",
        "whole numbers": f"{_BLIND}|whole numbers",
        "large": "gradient is zero|misses|mislead",
        "huge": "gradient is zero|misses|mislead",
        "negative infinity": "NaN or infinity",
        "nan for some": "NaN or infinity",
    },
    "normalisation": dict.fromkeys(("none", "by flags", "by buffers", "by constants", "in the file"), "")
    | {
        "forgotten": "has no mean and std",
        "in pixels": "divide them by 255",
        "twice": "normalises by its own",
        "mean alone": "--std: missing",
        "of three channels": "the images have 1 channels",
    },
    "dtype": dict.fromkeys(("float32", "float64", "float16", "bfloat16"), ""),
    "prefix": dict.fromkeys(
        [
            "",
            "module.",
            "_orig_mod.",
            "model.",
            "net.",
            "network.",
            "module._orig_mod.",
            "_orig_mod.module.",
            "module.model.",
            "backbone.",
            "state_dict.",
            "encoder.net.",
            "1.",
            "student.",
            "ema_model.",
        ],
        "",
    ),
    "file": {},  # below
    "attack": dict.fromkeys(("natural", "fgsm", "square", "pgd-3", "natural,fgsm"), ""),
    "run": dict.fromkeys(
        ("once", "out", "out twice", "batches of 5", "batches of 17", "batches of 1000", "quiet", "attack"), ""
    ),
}


def changed(state: State, parts: Parts) -> State:
    """Return the state dict with the dtype and prefix of the parts, and with mean and std if the parts say so."""
    dtype = getattr(torch, parts["dtype"])
    beside = {"mean": torch.tensor([MEAN]), "std": torch.tensor([STD])}
    pair = beside if parts["normalisation"] == "in the file" else {}
    cast = {name: each.to(dtype) if _weighs(name, each) else each for name, each in state.items()}
    return {parts["prefix"] + name: each for name, each in {**pair, **cast}.items()}


def _weighs(name: str, tensor: Tensor) -> bool:
    return tensor.is_floating_point() and name not in ("mean", "std")


def _other(state: State) -> State:
    """Return zero weights, except for standard deviations, which are never zero."""
    return {name: each if name.endswith("std") else torch.zeros_like(each) for name, each in state.items()}


def _adam(state: State) -> dict[str, Any]:
    return {"state": {k: {"exp_avg": torch.zeros_like(each)} for k, each in enumerate(state.values())}}


def _numbers(state: State, dtype: Any) -> dict[str, Any]:
    return {name: dtype(each.float().numpy()) for name, each in state.items()}


Content = Callable[[State], object]
_ONE = torch.ones(10)
_several = "has several sets of weights"
# kind of file -> function from a state dict to the object that `torch.save` writes, and the allowed messages
CONTENTS: dict[str, tuple[Content, str]] = {
    "bare": (lambda sd: sd, ""),
    "with an epoch": (lambda sd: {"epoch": 3, "state_dict": sd, "optimizer": _adam(sd), "best": 93.5}, ""),
    "model": (lambda sd: {"model": sd, "args": {"lr": 0.1, "name": "a", "steps": (1, 2), "on": None}}, ""),
    "net": (lambda sd: {"net": sd, "acc": 93.5, "epoch": 3}, ""),
    "within": (lambda sd: {"checkpoint": {"best": {"model": sd}}, "epoch": 3}, ""),
    "raw and good ema": (lambda sd: {"state_dict": _other(sd), "ema": sd}, _several),
    "good raw and ema": (lambda sd: {"state_dict": sd, "ema": _other(sd)}, ""),
    "ema before good raw": (lambda sd: {"ema": _other(sd), "model": sd}, ""),
    "ema alone": (lambda sd: {"ema": sd, "step": 3}, ""),
    "ema by its key": (lambda sd: {"state_dict": _other(sd), "ema": sd}, ""),
    "timm": (lambda sd: {"arch": "n", "state_dict": sd, "state_dict_ema": _other(sd), "version": 2}, ""),
    "moments by name": (lambda sd: {"exp_avg": _other(sd), "model": sd}, ""),
    "two names, one good": (lambda sd: {"first": _other(sd), "second": sd}, _several),
    "averaged": (lambda sd: {"n_averaged": torch.tensor(7), **{f"module.{k}": v for k, v in sd.items()}}, ""),
    "lightning": (lambda sd: {"state_dict": {**{f"model.{k}": v for k, v in sd.items()}, "loss.w": _ONE}}, ""),
    "student and teacher": (
        lambda sd: {
            f"{who}.{k}": v for who, each in (("student", sd), ("teacher", _other(sd))) for k, v in each.items()
        },
        "",
    ),
    "attacker": (
        lambda sd: {
            "model": {f"{who}.{k}": v for who in ("module.model", "module.attacker.model") for k, v in sd.items()}
        },
        "",
    ),
    "numpy scalar": (lambda sd: {"state_dict": sd, "acc": np.float64(52.1), "epoch": np.int64(3)}, ""),
    "numpy array": (lambda sd: {"state_dict": sd, "curve": np.arange(5.0), "bool": np.bool_(True)}, ""),
    "numpy weights": (lambda sd: _numbers(sd, np.asarray), _PLAIN),
    "namespace": (lambda sd: {"state_dict": sd, "args": argparse.Namespace(lr=0.1)}, _SAFE),
    "path": (lambda sd: {"state_dict": sd, "path": Path("a")}, _SAFE),
    "list": (lambda sd: [sd], _PLAIN),
    "tuple": (lambda sd: (sd, 3), _PLAIN),
    "parameters": (lambda sd: {k: _parameter(v) for k, v in sd.items()}, ""),
    "with gradients": (lambda sd: {k: v.clone().requires_grad_(v.is_floating_point()) for k, v in sd.items()}, ""),
    "no counters": (lambda sd: {k: v for k, v in sd.items() if "num_batches" not in k}, ""),
    "lacks a bias": (lambda sd: {k: v for k, v in sd.items() if not k.endswith("fc.bias")}, _UNFIT),
    "one too many": (lambda sd: {**sd, _sibling(sd): _ONE}, f"{_UNFIT}|not used"),
    "another shape": (lambda sd: {k: v[:5] if k.endswith("fc.bias") else v for k, v in sd.items()}, _UNFIT),
    "complex": (lambda sd: {k: v.to(torch.complex64) for k, v in sd.items()}, "no plain tensor"),
    "sparse": (
        lambda sd: {k: v.to_sparse() if "fc.weight" in k else v for k, v in sd.items()},
        "plain tensor|" + _SAFE,
    ),
    "strided": (lambda sd: {k: v.t().contiguous().t() if v.dim() == 2 else v for k, v in sd.items()}, ""),
    "one storage": (lambda sd: _views(sd), ""),
    "counter as a float": (lambda sd: {k: v if v.is_floating_point() else v.float() for k, v in sd.items()}, ""),
    "integers": (lambda sd: {k: (v * 100).long() for k, v in sd.items()}, "whole numbers|integers"),
    "nan weights": (lambda sd: {k: v * torch.nan if "fc.bias" in k else v for k, v in sd.items()}, "NaN"),
    "nothing": (lambda sd: {}, _PLAIN),
    "a tensor": (lambda sd: _ONE, _PLAIN),
}


def _parameter(tensor: Tensor) -> Tensor:
    return torch.nn.Parameter(tensor) if tensor.is_floating_point() else tensor


def _sibling(state: State) -> str:
    return next(name for name in state if name.endswith("fc.bias")).replace("fc.bias", "fc.extra")


def _views(state: State) -> State:
    names = [name for name, each in state.items() if each.is_floating_point()]
    flat = torch.cat([state[name].reshape(-1) for name in names])
    parts = flat.split([state[name].numel() for name in names])
    return {**state, **{name: part.view(state[name].shape) for name, part in zip(names, parts, strict=True)}}


Writer = Callable[[State, Path, Parts], object]
FILES: dict[str, tuple[Writer, str]] = {
    "safetensors": (lambda sd, path, parts: save_file(_apart(sd), path), ""),
    "old form": (lambda sd, path, parts: torch.save(sd, path, _use_new_zipfile_serialization=False), ""),
    "protocol 3": (lambda sd, path, parts: torch.save(sd, path, pickle_protocol=3), ""),
    "protocol 4": (lambda sd, path, parts: torch.save(sd, path, pickle_protocol=4), "pickle protocol 4"),
    "old form, protocol 5": (
        lambda sd, path, parts: torch.save(sd, path, pickle_protocol=5, _use_new_zipfile_serialization=False),
        "pickle protocol 5",
    ),
    "whole network": (lambda sd, path, parts: torch.save(build("plain", "none", "eval", "logits"), path), _SAFE),
    "scripted": (
        lambda sd, path, parts: _script(path),
        "TorchScript",
    ),
    "plain pickle": (
        lambda sd, path, parts: path.write_bytes(pickle.dumps(sd)),
        "not a whole file|holds more|protocol",
    ),
    "gzip": (lambda sd, path, parts: path.write_bytes(gzip.compress(_saved(sd, path))), "gzip"),
    "torn": (lambda sd, path, parts: path.write_bytes(_saved(sd, path)[:-700]), "not a whole|expected|is "),
    "empty": (lambda sd, path, parts: path.write_bytes(b""), "not a whole|empty"),
    "folder": (lambda sd, path, parts: path.mkdir(), "is a folder"),
    "missing": (lambda sd, path, parts: None, "no such file"),
}
MAY["file"] = {name: may for name, (_, may) in {**CONTENTS, **FILES}.items()}


def _script(path: Path) -> None:
    made: Any = scripted(build("plain", "none", "eval", "logits"))
    made.save(path)


def _apart(state: State) -> State:
    return {name: each.clone() for name, each in state.items()}


def _saved(state: State, path: Path) -> bytes:
    torch.save(state, path)
    return path.read_bytes()


def write_weights(state: State, path: Path, parts: Parts) -> None:
    """Write the file of weights as the parts say."""
    state = changed(state, parts)
    if parts["file"] in FILES:
        FILES[parts["file"]][0](state, path, parts)
    else:
        torch.save(CONTENTS[parts["file"]][0](state), path)


# name -> environment variables and the allowed messages. Those in PROCESS take effect when Python or a library starts.
ENVIRONMENTS: dict[str, tuple[dict[str, str | None], str]] = {
    "none": ({}, ""),
    "one of one": ({"RANK": "0", "WORLD_SIZE": "1", "MASTER_PORT": "abc"}, ""),
    "empty rank": ({"RANK": "", "WORLD_SIZE": "", "LOCAL_RANK": "x"}, ""),
    "a world alone": ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2 without"),
    "rank of words": ({"RANK": "abc", "WORLD_SIZE": "1"}, "RANK=abc"),
    "rank too high": ({"RANK": "3", "WORLD_SIZE": "2"}, "RANK|WORLD_SIZE"),
    "world of none": ({"RANK": "0", "WORLD_SIZE": "0"}, "WORLD_SIZE"),
    "slurm": ({"SLURM_PROCID": "1", "SLURM_NTASKS": "4", "OMPI_COMM_WORLD_SIZE": "4", "LOCAL_RANK": "3"}, ""),
    "no such home": ({"HOME": "/no/such", "TMPDIR": "/no/such", "XDG_CACHE_HOME": "/no/such"}, ""),
    "no home": ({"HOME": None, "USER": None, "TERM": None, "PATH": None}, ""),
    "a narrow terminal": ({"COLUMNS": "1", "LINES": "abc", "TERM": "dumb", "FORCE_COLOR": "1"}, ""),
    "no such GPU": ({"CUDA_VISIBLE_DEVICES": "99"}, ""),
    "folder removed": ({}, "cannot|no such|current folder"),
    "full stdout": ({}, "stdout: cannot write"),
    "closed stdout": ({}, "stdout|Bad file descriptor"),
    "closed stderr": ({}, ""),
    "ascii": ({"PYTHONIOENCODING": "ascii"}, ""),
    "latin-1, strict": ({"PYTHONIOENCODING": "latin-1:strict"}, ""),
    "utf-16": ({"PYTHONIOENCODING": "utf-16"}, ""),
    "C locale": ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, ""),
    "closed stdin": ({}, ""),
    "warnings are errors": ({"PYTHONWARNINGS": "error"}, "Warning"),
    "optimised": ({"PYTHONOPTIMIZE": "2"}, ""),
    "developer": ({"PYTHONDEVMODE": "1"}, ""),
    "safe path": ({"PYTHONSAFEPATH": "1"}, ""),
    "threads of words": ({"OMP_NUM_THREADS": "abc", "MKL_NUM_THREADS": "x"}, ""),
    "threads of none": ({"OMP_NUM_THREADS": "0"}, ""),
    "no JIT": ({"PYTORCH_JIT": "0", "TORCHDYNAMO_DISABLE": "1"}, ""),
    "unsafe loads": ({"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}, ""),
}
_NAMES = list(ENVIRONMENTS)
PROCESS = {*_NAMES[_NAMES.index("ascii") :], "prints as it ends"}
MAY["environment"] = {name: may for name, (_, may) in ENVIRONMENTS.items()}
MAY["name"] = dict.fromkeys(("w.pt", "größe ✓.pt", "a b.pth", "-w.pt", "w", "w.safetensors", "w.th.tar", "W.BIN"), "")
