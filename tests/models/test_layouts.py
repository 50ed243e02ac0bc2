"""Networks of other repositories made by hand, name by name, with forward passes written from their definitions."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from made_states import State, bn, conv, norm, saved
from torch import Tensor

from bsk.errors import InputError
from bsk.models.architectures import PUBLISHED
from bsk.models.foreign import Foreign, foreign_model
from bsk.models.registry import network

CIFAR = {"classes": 10, "channels": 3, "size": 32}
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)


@pytest.fixture
def x() -> Tensor:
    return torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def head(state: State, name: str, inputs: int) -> State:
    return state | {f"{name}.weight": torch.randn(10, inputs) / inputs**0.5, f"{name}.bias": torch.randn(10)}


def mean_of_8x8(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, x.shape[-1]).flatten(1)


@dataclass(frozen=True)
class Kuangliu:
    """ResNets with kuangliu's names: post- or pre-activation, with 2 or 3 convolutions per block."""

    width: int
    depths: tuple[int, ...]
    kernels: tuple[int, ...]
    before: bool
    last_norm: bool = True
    raw: bool = False

    def blocks(self):
        inputs, grows = self.width, 4 if len(self.kernels) == 3 else 1
        for stage, depth in enumerate(self.depths, 1):
            for i in range(depth):
                inner = self.width * 2 ** (stage - 1)
                channels = [inputs, *[inner] * (len(self.kernels) - 1), inner * grows]
                yield f"layer{stage}.{i}", channels, 2 if stage > 1 and i == 0 else 1
                inputs = channels[-1]

    def state(self) -> State:
        state: State = {}
        conv(state, "conv1", self.width, 3, 3)
        if not self.before:
            bn(state, "bn1", self.width)
        for layer, channels, stride in self.blocks():
            for i, kernel in enumerate(self.kernels, 1):
                conv(state, f"{layer}.conv{i}", channels[i], channels[i - 1], kernel)
                bn(state, f"{layer}.bn{i}", channels[i - 1 if self.before else i])
            if stride == 2 or channels[0] != channels[-1]:
                conv(state, f"{layer}.shortcut.0", channels[-1], channels[0], 1)
                if not self.before:
                    bn(state, f"{layer}.shortcut.1", channels[-1])
        if self.before and self.last_norm:
            bn(state, "bn", channels[-1])
        return head(state, "linear", channels[-1])

    def logits(self, state: State, x: Tensor) -> Tensor:
        out = F.conv2d(x, state["conv1.weight"], padding=1)
        out = out if self.before else F.relu(norm(state, "bn1", out))
        for layer, _, stride in self.blocks():
            out = (self.block_before if self.before else self.block_after)(state, layer, stride, out)
        if self.before and self.last_norm:
            out = F.relu(norm(state, "bn", out))
        return F.linear(mean_of_8x8(out), state["linear.weight"], state["linear.bias"])

    def strides(self, stride: int) -> list[int]:
        return [stride, 1] if len(self.kernels) == 2 else [1, stride, 1]

    def block_before(self, state: State, layer: str, stride: int, x: Tensor) -> Tensor:
        out, first = x, None
        for i, (kernel, own) in enumerate(zip(self.kernels, self.strides(stride), strict=True), 1):
            out = F.relu(norm(state, f"{layer}.bn{i}", out))
            first = out if first is None else first
            out = F.conv2d(out, state[f"{layer}.conv{i}.weight"], stride=own, padding=kernel // 2)
        shortcut = state.get(f"{layer}.shortcut.0.weight")
        return out + (x if shortcut is None else F.conv2d(x if self.raw else first, shortcut, stride=stride))

    def block_after(self, state: State, layer: str, stride: int, x: Tensor) -> Tensor:
        out = x
        for i, (kernel, own) in enumerate(zip(self.kernels, self.strides(stride), strict=True), 1):
            out = F.conv2d(out, state[f"{layer}.conv{i}.weight"], stride=own, padding=kernel // 2)
            out = norm(state, f"{layer}.bn{i}", out)
            out = F.relu(out) if i < len(self.kernels) else out
        shortcut = state.get(f"{layer}.shortcut.0.weight")
        if shortcut is not None:
            x = norm(state, f"{layer}.shortcut.1", F.conv2d(x, shortcut, stride=stride))
        return F.relu(out + x)


EIGHTEEN, FIFTY, BASIC, BOTTLENECK = (2, 2, 2, 2), (3, 4, 6, 3), (3, 3), (1, 3, 1)
KUANGLIU = {
    "resnet18-4": Kuangliu(4, EIGHTEEN, BASIC, before=False),
    "resnet50-4-kuangliu": Kuangliu(4, FIFTY, BOTTLENECK, before=False),
    "preact-resnet18-4": Kuangliu(4, EIGHTEEN, BASIC, before=True),
    "preact-resnet18-4-kuangliu": Kuangliu(4, EIGHTEEN, BASIC, before=True, last_norm=False),
    "preact-resnet18-4-wong": Kuangliu(4, EIGHTEEN, BASIC, before=True, last_norm=False, raw=True),
    "preact-resnet50-4": Kuangliu(4, FIFTY, BOTTLENECK, before=True),
    "preact-resnet50-4-kuangliu": Kuangliu(4, FIFTY, BOTTLENECK, before=True, last_norm=False),
}


def check(found: Foreign, state: State, x: Tensor, expected: Tensor) -> None:
    """The logits are theirs, and each of their tensors was used."""
    with torch.no_grad():
        torch.testing.assert_close(found.model(x), expected, rtol=1e-5, atol=1e-5)
    assert expected.std() > 0.01 and found.dropped == []
    assert len(found.model.network.state_dict()) == sum(name not in ("mean", "std") for name in state)


@pytest.mark.parametrize("name", KUANGLIU)
def test_resnets_of_kuangliu_and_those_who_took_them_over(name: str, x: Tensor, tmp_path: Path) -> None:
    theirs = KUANGLIU[name]
    state = theirs.state()
    found = foreign_model(name, saved(tmp_path / "w.pt", {"state_dict": state}), **CIFAR)
    check(found, state, x, theirs.logits(state, x))


def after_the_end(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """A 3x3 convolution with SAME padding: for stride 2, one row and one column of zeros at the end."""
    n, c, h, w = x.shape
    whole = torch.zeros(n, c, h + (1 if stride == 2 else 2), w + (1 if stride == 2 else 2))
    place = 0 if stride == 2 else 1
    whole[:, :, place : place + h, place : place + w] = x
    return F.conv2d(whole, weight, stride=stride)


def swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def deepmind_wide(depth: int, width: int) -> State:
    state: State = {"mean": torch.tensor(MEAN).view(3, 1, 1), "std": torch.tensor(STD).view(3, 1, 1)}
    conv(state, "init_conv", 16, 3, 3)
    inputs = 16
    for group in (0, 1, 2):
        outputs = 16 * width * 2**group
        for i in range((depth - 4) // 6):
            block = f"layer.{group}.block.{i}"
            bn(state, f"{block}.batchnorm_0", inputs)
            conv(state, f"{block}.conv_0", outputs, inputs, 3)
            bn(state, f"{block}.batchnorm_1", outputs)
            conv(state, f"{block}.conv_1", outputs, outputs, 3)
            if inputs != outputs:
                conv(state, f"{block}.shortcut", outputs, inputs, 1)
            inputs = outputs
    bn(state, "batchnorm", inputs)
    return head(state, "logits", inputs)


def deepmind_wide_logits(state: State, x: Tensor, depth: int) -> Tensor:
    out = after_the_end((x - state["mean"]) / state["std"], state["init_conv.weight"], 1)
    for group in (0, 1, 2):
        for i in range((depth - 4) // 6):
            block, stride = f"layer.{group}.block.{i}", 2 if group and i == 0 else 1
            active = swish(norm(state, f"{block}.batchnorm_0", out))
            branch = after_the_end(active, state[f"{block}.conv_0.weight"], stride)
            branch = after_the_end(
                swish(norm(state, f"{block}.batchnorm_1", branch)), state[f"{block}.conv_1.weight"], 1
            )
            shortcut = state.get(f"{block}.shortcut.weight")
            out = branch + (out if shortcut is None else F.conv2d(active, shortcut, stride=stride))
    out = swish(norm(state, "batchnorm", out))
    return F.linear(mean_of_8x8(out), state["logits.weight"], state["logits.bias"])


@pytest.mark.parametrize(("depth", "width"), [(10, 1), (16, 2)])
def test_the_wide_resnets_of_deepmind(depth: int, width: int, x: Tensor, tmp_path: Path) -> None:
    state = deepmind_wide(depth, width)
    found = foreign_model(f"wrn-{depth}-{width}-silu", saved(tmp_path / "w.pt", state), **CIFAR)
    check(found, state, x, deepmind_wide_logits(state, x, depth))
    assert found.normalisation == "weights" and found.mean == pytest.approx(MEAN)


def deepmind_preact(width: int) -> State:
    state: State = {"mean": torch.tensor(MEAN).view(3, 1, 1), "std": torch.tensor(STD).view(3, 1, 1)}
    conv(state, "conv_2d", width, 3, 3)
    inputs = width
    for stage in range(4):
        outputs = width * 2**stage
        for i in (0, 1):
            block = f"layer_{stage}.{i}"
            bn(state, f"{block}.batchnorm_0", inputs)
            conv(state, f"{block}.conv_2d_1", outputs, inputs, 3)
            bn(state, f"{block}.batchnorm_1", outputs)
            conv(state, f"{block}.conv_2d_2", outputs, outputs, 3)
            if inputs != outputs:
                conv(state, f"{block}.shortcut", outputs, inputs, 3)
            inputs = outputs
    bn(state, "batchnorm", inputs)
    return head(state, "logits", inputs)


def deepmind_preact_logits(state: State, x: Tensor) -> Tensor:
    out = after_the_end((x - state["mean"]) / state["std"], state["conv_2d.weight"], 1)
    for stage in range(4):
        for i in (0, 1):
            block, stride = f"layer_{stage}.{i}", 2 if stage and i == 0 else 1
            active = swish(norm(state, f"{block}.batchnorm_0", out))
            branch = after_the_end(active, state[f"{block}.conv_2d_1.weight"], stride)
            active = swish(norm(state, f"{block}.batchnorm_1", branch))
            shortcut = state.get(f"{block}.shortcut.weight")
            out = out if shortcut is None else after_the_end(out, shortcut, stride)
            out = out + after_the_end(active, state[f"{block}.conv_2d_2.weight"], 1)
    out = swish(norm(state, "batchnorm", out))
    return F.linear(mean_of_8x8(out), state["logits.weight"], state["logits.bias"])


def test_the_preact_resnet18_of_deepmind(x: Tensor, tmp_path: Path) -> None:
    state = deepmind_preact(4)
    found = foreign_model("preact-resnet18-4-silu", saved(tmp_path / "w.pt", state), **CIFAR)
    check(found, state, x, deepmind_preact_logits(state, x))


@pytest.mark.parametrize(
    ("state", "model", "others"),
    [
        (KUANGLIU["preact-resnet18-4"].state(), "resnet18-4", "preact-resnet18-4"),
        (KUANGLIU["resnet18-4"].state(), "preact-resnet18-4", "resnet18-4"),
        (KUANGLIU["resnet18-4"].state(), "preact-resnet18", "resnet18-4"),  # of another width too
        (KUANGLIU["resnet50-4-kuangliu"].state(), "resnet50-4", "resnet50-4-kuangliu"),
        (KUANGLIU["preact-resnet50-4"].state(), "preact-resnet18-4", "preact-resnet50-4"),
        (
            KUANGLIU["preact-resnet18-4-wong"].state(),
            "preact-resnet18-4",
            "preact-resnet18-4-kuangliu or --model preact-resnet18-4-wong",
        ),
        (deepmind_wide(16, 2), "wrn-28-10", "wrn-16-2-silu"),
        (deepmind_preact(4), "preact-resnet18-4", "preact-resnet18-4-silu"),
        *[(network(name, 10, 3, 32).state_dict(), "resnet18", name) for name in ("cnn", "cnn-4", *PUBLISHED)],
    ],
)
def test_weights_of_another_network_are_refused_and_it_is_named(
    state: State, model: str, others: str, tmp_path: Path
) -> None:
    for content in (state, {"net": {f"module.{name}": each for name, each in reversed(state.items())}}):
        path = saved(tmp_path / "w.pt", content)
        with pytest.raises(InputError) as refused:
            foreign_model(model, path, **CIFAR)
        line = str(refused.value)
        assert line.startswith(f"{path}: does not fit {model}: ") and line.endswith(f"; it fits --model {others}")
        assert "\n" not in line


@pytest.mark.parametrize("model", ["preact-resnet18-4", "resnet18"])
def test_weights_for_another_number_of_classes_are_refused_and_both_numbers_are_named(
    model: str, tmp_path: Path
) -> None:
    path = saved(tmp_path / "w.pt", network("preact-resnet18-4", 100, 3, 32).state_dict())
    with pytest.raises(
        InputError, match="; it fits --model preact-resnet18-4 with 100 classes, but the data has 10; use"
    ):
        foreign_model(model, path, **CIFAR)


def test_weights_of_unknown_networks_are_refused(tmp_path: Path) -> None:
    for state in ({"a.weight": torch.ones(3)}, {"a.weight": torch.ones(4, 3, 3, 3), "b.weight": torch.ones(2, 9)}):
        with pytest.raises(InputError, match="; check --model and --data$"):
            foreign_model("preact-resnet18-4", saved(tmp_path / "w.pt", state), **CIFAR)


def test_published_sizes() -> None:
    """Of PreActResNet-18 and WideResNet-28-10; DeepMind's have 3x3 shortcuts, nine times as many weights there."""

    def parameters(name: str) -> int:
        with torch.device("meta"):
            return sum(each.numel() for each in network(name, 10, 3, 32).parameters())

    assert parameters("preact-resnet18-kuangliu") == parameters("preact-resnet18-wong") == 11_171_146
    assert parameters("preact-resnet18") == 11_171_146 + 2 * 512 == 11_172_170
    assert parameters("preact-resnet18-silu") == 11_172_170 + 8 * (64 * 128 + 128 * 256 + 256 * 512)
    assert parameters("wrn-28-10") == parameters("wrn-28-10-silu") == 36_479_194
    assert parameters("resnet50-kuangliu") == 23_520_842


@pytest.mark.parametrize("name", ["wrn-10-1-silu", "preact-resnet18-2-silu"])
@pytest.mark.parametrize("size", [(8, 8), (7, 9), (9, 6), (33, 33)])
def test_deepminds_networks_take_odd_sides_padded_as_same_means(name: str, size: tuple[int, int]) -> None:
    """An odd side has a zero at both ends, as JAX has it: halves are rounded up."""
    torch.manual_seed(0)
    assert network(name, 5, 3, size)(torch.rand(2, 3, *size)).shape == (2, 5)
