"""Where fp32 passes may round their factors, as TF32 does on a GPU: a CPU has such a setting too, bf16."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bsk.contract.network import Network
from bsk.data.store import open_data
from bsk.evaluation.calls import exact
from bsk.progress import TrainingProgress
from bsk.training import step
from bsk.training.flags import TrainingFlags
from bsk.training.run import run

pytestmark = pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="older than these settings")
CPU = torch.device("cpu")


def precision() -> str:
    return str(torch.backends.mkldnn.conv.fp32_precision)


@pytest.fixture(autouse=True)
def rounding() -> Iterator[None]:
    """Let convolutions round their factors."""
    before = precision()
    torch.backends.mkldnn.conv.fp32_precision = "bf16"
    yield
    torch.backends.mkldnn.conv.fp32_precision = before


class Told(nn.Module):
    """A network that remembers the precision of its passes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.seen = nn.Linear(4, 2), []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(precision())
        return self.layer(x.flatten(1))


def test_nothing_is_rounded_from_an_exact_pass_to_the_end_of_the_update() -> None:
    model, x = Told(), torch.rand(3, 1, 2, 2)
    net = Network(model)
    for _ in range(2):
        with net.scope:
            net(x)
            net.exact(x)
            net(x)
        assert precision() == "bf16"
    assert model.seen == ["bf16", "ieee", "ieee"] * 2


@pytest.mark.parametrize(("method", "expected"), [("bs", "bf16"), ("gradalign", "ieee"), ("elle", "ieee")])
def test_the_backward_pass_of_such_an_update_is_exact_too(
    method: str, expected: str, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[str] = set()

    def differentiating() -> contextlib.AbstractContextManager[None]:
        seen.add(precision())
        return contextlib.nullcontext()

    monkeypatch.setattr(step, "differentiating", differentiating)
    flags = TrainingFlags(method=method, model="cnn-4", epochs=1, batch_size=80, precision="fp32", log_divergence=True)
    with TrainingProgress(False) as watcher:
        run(flags, open_data(toy), tmp_path / "m.safetensors", device=CPU, watcher=watcher)
    assert seen == {expected} and precision() == "bf16"


def test_evaluations_are_exact_and_repeat_on_a_gpu() -> None:
    model = Told()
    with pytest.raises(RuntimeError, match="stop"), exact(model):
        model(torch.rand(3, 1, 2, 2))
        assert torch.backends.cudnn.deterministic
        raise RuntimeError("stop")
    assert model.seen == ["ieee"] and precision() == "bf16" and not torch.backends.cudnn.deterministic
