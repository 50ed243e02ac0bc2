"""On a CUDA device, where there is one: every method trains, and attacks find what they find on the CPU."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_loop import timeless
from torch import Tensor, nn
from toys import CPU, settings, stop_after, trained

from bsk.attacks.registry import Flags, attack_named
from bsk.data.store import DataFile, Split
from bsk.errors import StoppedError
from bsk.evaluation.ledger import Ledger
from bsk.evaluation.verdicts import exact, judge
from bsk.files import checkpoints, records
from bsk.models.registry import build
from bsk.training.methods import METHODS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def repeatable(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuDNN may add in any order; and what is compared with the CPU must not be rounded to TF32."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_the_toy_data(method: str, precision: str, data: DataFile, tmp_path: Path) -> None:
    s = settings(method, augment="none", epochs=5, precision=precision, ema=0.9, log_divergence=True)
    end = trained(tmp_path / "m.safetensors", data, s, device=CUDA)
    assert end["val_natural"] > 0.9 and end["device"].startswith("cuda ")
    on_cpu = trained(tmp_path / "c.safetensors", data, replace(s, precision="fp32"), device=CPU)
    if METHODS[method].rescue is None:
        assert end["train_backward_passes"] == on_cpu["train_backward_passes"]


def test_an_update_is_that_of_the_cpu(data: DataFile, tmp_path: Path) -> None:
    s = settings("natural", epochs=1)
    ends = []
    for device in (CPU, CUDA):
        trained(tmp_path / f"{device.type}.safetensors", data, s, device=device)
        ends.append(checkpoints.load(tmp_path / f"{device.type}.safetensors", ("model",))[0])
    for name, there in ends[0].items():
        assert torch.allclose(there.double(), ends[1][name].double(), atol=1e-4), name


@pytest.mark.parametrize(
    ("method", "flags"), [("bs", {"ema": 0.9}), ("bs", {"precision": "bf16"}), ("fast-at-plus", {})]
)
def test_an_interrupted_training_goes_on_bit_for_bit(method, flags, data: DataFile, tmp_path: Path) -> None:
    s = settings(method, **flags)
    trained(tmp_path / "whole.safetensors", data, s, device=CUDA)
    with pytest.raises(StoppedError):
        trained(tmp_path / "cut.safetensors", data, s, device=CUDA, stopping=stop_after(11))
    trained(tmp_path / "cut.safetensors", data, s, device=CUDA)
    whole, cut = (checkpoints.load(tmp_path / f"{name}.safetensors", ("model",))[0] for name in ("whole", "cut"))
    assert all(torch.equal(whole[k], cut[k]) for k in whole)
    logs = [records.read(tmp_path / f"{name}.jsonl") for name in ("whole", "cut")]
    assert timeless(logs[0]) == timeless(logs[1])


@pytest.fixture(scope="module")
def network() -> nn.Module:
    net = build("resnet18-4", classes=10, channels=3, size=16, mean=[0.5] * 3, std=[0.25] * 3, seed=3)
    net.train()
    with torch.no_grad():  # batch norm statistics of its own
        random = torch.Generator().manual_seed(0)
        for _ in range(10):
            net(torch.rand(64, 3, 16, 16, generator=random))
    return net


@pytest.fixture(scope="module")
def split(network: nn.Module) -> Split:
    random = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (24, 3, 16, 16), generator=random, dtype=torch.uint8)
    with exact(network):
        labels: Tensor = network(images / 255).argmax(1)
    return Split(images, labels, torch.arange(24))


@pytest.mark.parametrize("name", ["natural", "fgsm", "pgd-20", "cw-20x2", "apgd-ce", "autoattack", "rays"])
def test_attacks_find_what_they_find_on_the_cpu(name: str, network: nn.Module, split: Split) -> None:
    attack = attack_named(name, 0.004, Flags(start="uniform", queries=100))

    def judged(device: torch.device, batch_size: int = 24) -> Ledger:
        return judge(network.to(device), split, attack, eps=0.004, seed=0, batch_size=batch_size, device=device)

    here, there, parts = judged(CPU), judged(CUDA), judged(CUDA, batch_size=7)
    network.to(CPU)
    if name not in ("natural", "rays"):
        assert 2 < int(here.standing.sum()) < 23
    for other in (there, parts):
        assert int((here.standing != other.standing.cpu()).sum()) <= 1
        assert float(other.forward.double().mean()) == pytest.approx(float(here.forward.double().mean()), rel=0.2)
