"""Trainings on the toy data."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bsk.data.store import DataFile
from bsk.errors import StoppedError
from bsk.methods.registry import METHODS, needs_extra
from bsk.training.bound import bind
from bsk.training.run import run
from bsk.training.settings import Settings

CPU = torch.device("cpu")
EPS = 0.1
ALONE = [method for method in METHODS if not needs_extra(method)]  # that train on the data's images alone


class Silent:
    """A silent progress reporter that records the notices."""

    def __init__(self) -> None:
        self.notices: list[str] = []

    def notice(self, text) -> None:
        self.notices.append(text)

    def step(self, done, total, epoch, loss) -> None:
        pass

    def alarm(self, record) -> None:
        pass

    def epoch(self, record) -> None:
        pass


def settings(method: str = "bs", hyper: Mapping[str, Any] | None = None, **changes: Any) -> Settings:
    """A training of three epochs of 8 updates; hyper-parameters are the method's own but those given."""
    hyper = hyper or ({"beta": 10.0} if method == "elle" else None)  # at its usual weight this toy diverges
    own = bind(method, changes.get("eps", EPS), hyper).hyper
    plain = Settings(
        method=method,
        model="cnn-4",
        dataset="toy",
        eps=EPS,
        epochs=3,
        batch_size=32,
        schedule="cyclic",
        lr=0.1,
        precision="fp32",
        augment="crop-flip",
        hyper=own,
    )
    return replace(plain, **changes)


def trained(out: Path, data: DataFile, s: Settings, **more: object) -> dict:
    """Train, and return the end record."""
    return run(s, data, out, **{"device": CPU, "watcher": Silent(), **more})


def stopped(out: Path, data: DataFile, s: Settings, *updates: int, **more: object) -> None:
    """Train, and be stopped again and again, each time after so many updates."""
    for each in updates:
        with pytest.raises(StoppedError) as found:
            trained(out, data, s, stopping=stop_after(each), **more)
        assert found.value.exit_code == 143


def stop_after(updates: int, code: int = 143):  # type: ignore[no-untyped-def]
    """Ask a training to stop after a given number of updates."""
    calls = iter(range(10**9))
    return lambda: code if next(calls) >= updates - 1 else 0
