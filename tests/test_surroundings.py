"""What the caller has set in torch changes no result of the Python interface, and is as before afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import bsk


@contextlib.contextmanager
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        assert torch.get_default_dtype() == torch.float64, "restored"
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def elsewhere() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
    finally:
        assert torch.get_default_device().type == "meta", "restored"
        torch.set_default_device(None)


@contextlib.contextmanager
def products(precision: str) -> Iterator[None]:
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        assert torch.get_float32_matmul_precision() == precision, "restored"
        torch.set_float32_matmul_precision("highest")


SURROUNDINGS = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "float64": double,
    "another device": elsewhere,
    "another device in a block": lambda: torch.device("meta"),
    "rounded products": lambda: products("medium"),  # bf16 on a CPU
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
}


class Own(nn.Module):
    """A network with an autocast block of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(64, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu"):
            return self.two(self.one(x.flatten(1)).relu()).float()


@pytest.mark.parametrize("enabled", [True, False])
def test_a_network_with_an_autocast_block_of_its_own_trains_with_new_weights(enabled: bool, toy: Path) -> None:
    """Torch empties the cache of cast weights only when the outermost block ends, even if that is disabled."""

    def weights() -> dict[str, Tensor]:
        more = {"epochs": 2, "schedule": "cyclic", "precision": "fp32", "progress": False}
        return bsk.train(toy, "natural", model=f"{__name__}:Own", **more).model.state_dict()

    expected = weights()
    with torch.autocast("cpu", torch.float16, enabled=enabled):
        found = weights()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def results(data: Path) -> list[Tensor]:
    """What the functions return: trained weights, those of the network loaded again, verdicts, adversarial images."""
    run = bsk.train(
        data, "trades", steps=2, model="cnn-4", epochs=2, schedule="cyclic", precision="fp32", progress=False
    )
    prepared = bsk.prepare({"train": _pair(), "test": _pair()}, val=3, progress=False)
    x, y = prepared.split("test").images, prepared.split("test").labels
    found = bsk.evaluate(run.model, data=data, attack="pgd-5", eps=0.05, limit=30, checks=False, progress=False)
    x_adv = bsk.attack(run.model, x, y, attack="pgd-5", eps=0.05, progress=False)
    return [*run.model.state_dict().values(), found.correct, x_adv]


def _pair() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    images = torch.rand(30, 1, 8, 8, generator=random, dtype=torch.float32, device="cpu")
    return images, torch.arange(30, device="cpu") % 3


@pytest.fixture(scope="module")
def expected(toy: Path) -> list[Tensor]:
    return results(toy)


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_results_are_those_of_a_new_process(name: str, toy: Path, expected: list[Tensor]) -> None:
    with SURROUNDINGS[name]():
        found = results(toy)
    assert len(found) == len(expected) > 5
    assert all(torch.equal(one, other) and one.dtype == other.dtype for one, other in zip(found, expected, strict=True))


def test_a_network_that_was_loaded_without_gradients_has_them(trained: Path, toy: Path) -> None:
    with torch.inference_mode():
        model = bsk.load(trained)
    assert not any(each.is_inference() for each in model.parameters())
    assert bsk.evaluate(model, data=toy, attack="pgd-2", eps=0.05, checks=False, progress=False).n == 90


def test_threads_and_generators_of_the_caller_are_as_before(toy: Path) -> None:
    threads = torch.get_num_threads()
    bsk.train(toy, "fast-at", model="cnn-4", epochs=1, schedule="cyclic", threads=threads + 1, progress=False)
    assert torch.get_num_threads() == threads
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    before = torch.get_rng_state()
    x, y = _pair()
    bsk.evaluate(lambda z: net(z) + torch.randn(len(z), 3), x, y, attack="fgsm", eps=0.1, checks=False, progress=False)
    assert torch.equal(torch.get_rng_state(), before)


def drawn() -> dict[str, tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    return {name: (torch.rand(12, 1, 4, 4), torch.arange(12) % 3) for name in ("train", "test")}


def test_a_data_function_makes_the_same_images() -> None:
    expected = bsk.prepare(f"{__name__}:drawn", progress=False).split("test").images
    with double():
        found = bsk.prepare(f"{__name__}:drawn", progress=False).split("test").images
    assert torch.equal(found, expected) and found.float().std() > 10
