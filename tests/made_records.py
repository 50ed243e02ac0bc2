"""Records like those of `evaluate` and `train`, with ten test images and three seeds of two methods."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest

from bsk.records.bits import encode_correct
from bsk.records.located import Located

Record = dict[str, Any]
SECONDS = {"fast-at": 3.0, "bs": 6.0}

ROBUST = {  # what each seed gets right under attack
    "fast-at": {1: "1111100000", 2: "1111110000", 3: "1111000000"},
    "bs": {1: "1111111000", 2: "1111110000", 3: "0111111100"},
}
NATURAL = {
    "fast-at": {1: "1111111111", 2: "1111111111", 3: "1111111111"},
    "bs": {1: "1111111110", 2: "1111111111", 3: "1111111110"},
}


def evaluation(
    method: str = "bs", seed: int = 1, attack: str = "pgd-20", correct: str | None = None, **more: Any
) -> Record:
    """An evaluation; `correct` is a text of 0 and 1, `flags` are added to the usual ones."""
    bits = correct or (NATURAL if attack == "natural" else ROBUST)[method][seed]
    eps = more.get("eps", 0.2)
    parameters = {} if attack == "natural" else {"steps": 20, "step": 0.05, "restarts": 1}
    return {
        "schema": 1,
        "kind": "evaluation",
        "checkpoint": f"runs/{method}-{seed}.safetensors",
        "checkpoint_sha256": f"{method}-{seed}",
        "selected": "best",
        "epoch": 15 if str(more.get("selected")).startswith("last") else 12,
        "method": method,
        "model": "cnn",
        "dataset": "digits",
        "data_sha256": "abcdef0123456789",
        "seed": seed,
        "train_eps": eps,
        "train_seconds": SECONDS.get(method, 1.0) + seed / 4,
        "train_forward_passes": 1000,
        "train_backward_passes": 500,
        "eps": eps,
        "attack": attack,
        "split": "test",
        "n": len(bits),
        "accuracy": bits.count("1") / len(bits),
        "correct": encode_correct(np.array([bit == "1" for bit in bits])),
        **more,
        "attack_parameters": {**parameters, "seed": 0, **more.get("attack_parameters", {})},
        "flags": {"method": method, "seed": seed, "eps": eps, "step": eps, "epochs": 15, **more.get("flags", {})},
    }


def log(
    method: str = "bs", seed: int = 1, epochs: int = 15, end: bool = True, val: tuple[float, float] = (0.9, 0.6)
) -> list[Record]:
    """A training log of 15 planned epochs, of which `epochs` were run."""
    start = {
        "schema": 1,
        "kind": "start",
        "checkpoint": f"runs/{method}-{seed}.safetensors",
        "method": method,
        "model": "cnn",
        "dataset": "digits",
        "data_sha256": "abcdef0123456789",
        "seed": seed,
        "eps": 0.2,
        "flags": {"method": method, "seed": seed, "eps": 0.2, "step": 0.2, "epochs": 15},
    }
    body = [{"kind": "epoch", "epoch": epoch, "loss": 1.0, "val_robust": 0.1} for epoch in range(1, epochs + 1)]
    last = {
        "kind": "end",
        "checkpoint_sha256": f"{method}-{seed}",
        "epoch": 12,
        "val_natural": val[0],
        "val_robust": val[1],
        "train_seconds": 7.0,
        "train_forward_passes": 2000,
        "train_backward_passes": 700,
    }
    return [start, *body, *([last] if end else [])]


def at(records: Iterable[Record], source: str = "results.jsonl") -> list[Located]:
    """Records as if read from a file."""
    return [Located(source, line, json.loads(json.dumps(record))) for line, record in enumerate(records, 1)]


def everything() -> list[Record]:
    """Two methods, three seeds, natural and under attack."""
    return [evaluation(m, s, a) for m in ROBUST for s in (1, 2, 3) for a in ("natural", "pgd-20")]


@pytest.fixture
def results() -> list[Record]:
    """See `everything`."""
    return everything()


@pytest.fixture
def make() -> Callable[..., Record]:
    """See `evaluation`."""
    return evaluation


@pytest.fixture
def make_log() -> Callable[..., list[Record]]:
    """See `log`."""
    return log


@pytest.fixture
def place() -> Callable[..., list[Located]]:
    """See `at`."""
    return at
