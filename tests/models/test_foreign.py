"""Layouts made by hand, with forward passes written from the original code's definition."""

import argparse
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from made_states import State, bn, conv, norm, saved
from safetensors.torch import save_file
from torch import Tensor, nn

from bsk.data.batches import to_unit
from bsk.data.sources import prepare
from bsk.data.store import Split, open_data
from bsk.errors import BskError, InputError, UsageError
from bsk.models.fitting import Target
from bsk.models.foreign import Foreign, foreign_model
from bsk.models.registry import build, network
from bsk.models.weights import load_weights

CIFAR = {"classes": 10, "channels": 3, "size": 32}
MU, SIGMA = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2471, 0.2435, 0.2616])


def wide(depth: int, width: int, classes: int = 10) -> State:
    """A state dict of TRADES's WideResNet, with its dead `sub_block1`."""
    state: State = {}
    conv(state, "conv1", 16, 3, 3)
    for block, outputs in (("block1", 16), ("block2", 32), ("block3", 64), ("sub_block1", 16)):
        for i in range((depth - 4) // 6):
            layer, outs = f"{block}.layer.{i}", outputs * width
            inputs = (16 if block.endswith("block1") else outs // 2) if i == 0 else outs
            bn(state, f"{layer}.bn1", inputs)
            conv(state, f"{layer}.conv1", outs, inputs, 3)
            bn(state, f"{layer}.bn2", outs)
            conv(state, f"{layer}.conv2", outs, outs, 3)
            if inputs != outs:
                conv(state, f"{layer}.convShortcut", outs, inputs, 1)
    bn(state, "bn1", 64 * width)
    return state | {"fc.weight": torch.randn(classes, 64 * width) * 0.1, "fc.bias": torch.randn(classes)}


def wide_forward(state: State, x: Tensor, depth: int) -> Tensor:
    """The forward pass as TRADES has it: the shortcut convolution sees the activated x, the identity x itself."""
    out = F.conv2d(x, state["conv1.weight"], padding=1)
    for block in (1, 2, 3):
        for i in range((depth - 4) // 6):
            layer, stride = f"block{block}.layer.{i}", 2 if block > 1 and i == 0 else 1
            shortcut = state.get(f"{layer}.convShortcut.weight")
            active = F.relu(norm(state, f"{layer}.bn1", out))
            branch = F.conv2d(active, state[f"{layer}.conv1.weight"], stride=stride, padding=1)
            branch = F.conv2d(F.relu(norm(state, f"{layer}.bn2", branch)), state[f"{layer}.conv2.weight"], padding=1)
            out = branch + (out if shortcut is None else F.conv2d(active, shortcut, stride=stride))
    out = F.avg_pool2d(F.relu(norm(state, "bn1", out)), 8).flatten(1)
    return F.linear(out, state["fc.weight"], state["fc.bias"])


def kuangliu(width: int) -> State:
    state: State = {}
    conv(state, "conv1", width, 3, 3)
    bn(state, "bn1", width)
    inputs = width
    for stage in (1, 2, 3, 4):
        outputs = width << (stage - 1)
        for i in (0, 1):
            layer = f"layer{stage}.{i}"
            conv(state, f"{layer}.conv1", outputs, inputs, 3)
            bn(state, f"{layer}.bn1", outputs)
            conv(state, f"{layer}.conv2", outputs, outputs, 3)
            bn(state, f"{layer}.bn2", outputs)
            if inputs != outputs:
                conv(state, f"{layer}.shortcut.0", outputs, inputs, 1)
                bn(state, f"{layer}.shortcut.1", outputs)
            inputs = outputs
    return state | {"linear.weight": torch.randn(10, inputs) * 0.3, "linear.bias": torch.randn(10)}


def kuangliu_forward(state: State, x: Tensor) -> Tensor:
    out = F.relu(norm(state, "bn1", F.conv2d(x, state["conv1.weight"], padding=1)))
    for stage in (1, 2, 3, 4):
        for i in (0, 1):
            layer, stride = f"layer{stage}.{i}", 2 if stage > 1 and i == 0 else 1
            branch = F.conv2d(out, state[f"{layer}.conv1.weight"], stride=stride, padding=1)
            branch = F.conv2d(F.relu(norm(state, f"{layer}.bn1", branch)), state[f"{layer}.conv2.weight"], padding=1)
            branch = norm(state, f"{layer}.bn2", branch)
            if f"{layer}.shortcut.0.weight" in state:
                out = F.conv2d(out, state[f"{layer}.shortcut.0.weight"], stride=stride)
                out = norm(state, f"{layer}.shortcut.1", out)
            out = F.relu(branch + out)
    return F.linear(F.avg_pool2d(out, 4).flatten(1), state["linear.weight"], state["linear.bias"])


def prefixed(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def taken(path: Path, own: State | None = None) -> State:
    """The tensors of a file that are loaded into a network with that state dict."""
    return load_weights(path, Target("theirs:net", own or {"a": torch.ones(1)}, 3)).fit.tensors


@pytest.fixture
def x() -> Tensor:
    return torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(("depth", "width"), [(10, 1), (16, 2)])
def test_the_wide_resnets_of_trades_and_robustbench(depth: int, width: int, x: Tensor, tmp_path: Path) -> None:
    state = wide(depth, width)
    path = saved(tmp_path / "w.pt", {"state_dict": prefixed("module.model.", state), "epoch": 3})
    found = foreign_model(f"wrn-{depth}-{width}", path, **CIFAR)
    torch.testing.assert_close(found.model(x), wide_forward(state, x, depth), rtol=1e-4, atol=1e-4)
    assert found.normalisation == "none" and not found.model.training
    assert found.dropped and all(name.startswith("sub_block1.") for name in found.dropped)


def test_mu_and_sigma_of_robustbench_are_the_normalisation(x: Tensor, tmp_path: Path) -> None:
    state = wide(10, 1)
    buffers = {"mu": MU.reshape(1, 3, 1, 1), "sigma": SIGMA.reshape(1, 3, 1, 1)}
    expected = wide_forward(state, (x - buffers["mu"]) / buffers["sigma"], 10)
    path = saved(tmp_path / "w.pt", prefixed("model.", state | buffers))
    found = foreign_model("wrn-10-1", path, **CIFAR)
    assert (found.normalisation, found.mean, found.std) == ("weights", MU.tolist(), SIGMA.tolist())
    torch.testing.assert_close(found.model(x), expected, rtol=1e-4, atol=1e-4)
    flags = foreign_model("wrn-10-1", path, mean=[0.0] * 3, std=[1.0] * 3, **CIFAR)
    assert flags.normalisation == "flags" and flags.dropped[:2] == ["mu", "sigma"]
    torch.testing.assert_close(flags.model(x), wide_forward(state, x, 10), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("width", [4, 8])
def test_the_resnet18_of_kuangliu(width: int, x: Tensor, tmp_path: Path) -> None:
    state = kuangliu(width)
    path = saved(tmp_path / "r.pth", {"net": prefixed("module.", state), "acc": 93.1})
    found = foreign_model(f"resnet18-{width}", path, **CIFAR)
    torch.testing.assert_close(found.model(x), kuangliu_forward(state, x), rtol=1e-4, atol=1e-4)
    assert found.dropped == []


def test_a_sequential_of_normalisation_and_network(x: Tensor, tmp_path: Path) -> None:
    state = kuangliu(4)
    buffers = {"0.mean": MU, "0.std": SIGMA}
    found = foreign_model("resnet18-4", saved(tmp_path / "s.bin", buffers | prefixed("1.", state)), **CIFAR)
    expected = kuangliu_forward(state, (x - MU.reshape(3, 1, 1)) / SIGMA.reshape(3, 1, 1))
    assert found.normalisation == "weights"
    torch.testing.assert_close(found.model(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet18-4", "wrn-10-1", "cnn-4", "resnet50-4"])
def test_a_state_dict_of_bsk_is_read_again(name: str, x: Tensor, tmp_path: Path) -> None:
    model = build(name, mean=MU.tolist(), std=SIGMA.tolist(), seed=3, **CIFAR).eval()
    found = foreign_model(name, saved(tmp_path / "m.pt", model.state_dict()), **CIFAR)
    assert torch.equal(found.model(x), model(x)) and found.normalisation == "weights"
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / "m.safetensors")
    assert torch.equal(foreign_model(name, tmp_path / "m.safetensors", **CIFAR).model(x), model(x))


def test_half_precision_and_files_without_counters(x: Tensor, tmp_path: Path) -> None:
    state = {k: v.half() for k, v in kuangliu(4).items() if not k.endswith("num_batches_tracked")}
    found = foreign_model("resnet18-4", saved(tmp_path / "h.pt", state), **CIFAR)
    expected = kuangliu_forward({k: v.float() for k, v in state.items()}, x)
    torch.testing.assert_close(found.model(x), expected, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def images(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Split:
    out = tmp_path_factory.mktemp("cifar10") / "c.safetensors"
    prepare("cifar10", str(shared / "data" / "cifar10-subset-exact-python.tar.gz"), out, train_limit=100)
    return open_data(out).split("test")


@pytest.mark.parametrize(
    ("name", "file", "mean", "accuracy"),
    [
        ("cnn-a", "cnn_a_adv.model", [0.4914, 0.4824, 0.4467], 0.6565),
        ("resnet2b", "resnet2b.pth", [0.4914, 0.4822, 0.4465], 0.6925),
        ("resnet20", "resnet20.th", [0.485, 0.456, 0.406], 0.9173),
    ],
)
def test_real_checkpoints(
    name: str, file: str, mean: list[float], accuracy: float, shared: Path, images: Split
) -> None:
    """Accuracies are stated for 10,000 images; 2,000 of them are within three standard errors."""
    found = foreign_model(name, shared / "models" / file, **CIFAR)
    assert found.normalisation == "known" and found.mean == mean
    with torch.no_grad():
        batches = zip(images.images.split(500), images.labels.split(500), strict=True)
        right = sum(int((found.model(to_unit(x)).argmax(1) == y).sum()) for x, y in batches)
    error = (accuracy * (1 - accuracy) / len(images.labels)) ** 0.5
    assert right / len(images.labels) == pytest.approx(accuracy, abs=3 * error)


MODULE = """
import torch
from torch import nn
print("imported")
class Viewing(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.features = nn.Conv2d(3, 2, 3, padding=1)
        self.fc = nn.Linear(2 * 8 * 8, classes)
    def forward(self, x):
        out = self.features(x)
        return self.fc(out.view(out.size(0), -1))
class Normalising(Viewing):
    def __init__(self):
        super().__init__(4)
        self.register_buffer("mu", torch.full((1, 3, 1, 1), 0.5))
        self.register_buffer("sigma", torch.full((1, 3, 1, 1), 0.25))
    def forward(self, x):
        return super().forward((x - self.mu) / self.sigma)
class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = Viewing(4)
    def forward(self, x):
        return self.model(x)
def net(num_classes): return Viewing(num_classes)
def loose(**kwargs): return Viewing(kwargs["num_classes"])
def bare(): return Viewing(4)
def five(): return Viewing(5)
def number(): return 3
def broken(): raise ValueError("of mine\\nand more")
"""
SMALL = {"classes": 4, "channels": 3, "size": 8}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_networks.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def viewing(**more: Tensor) -> State:
    layers = nn.ModuleDict({"features": nn.Conv2d(3, 2, 3), "fc": nn.Linear(128, 4)})
    return layers.state_dict() | more


def viewing_forward(state: State, x: Tensor) -> Tensor:
    hidden = F.conv2d(x, state["features.weight"], state["features.bias"], padding=1)
    return F.linear(hidden.flatten(1), state["fc.weight"], state["fc.bias"])


@pytest.mark.parametrize("function", ["net", "loose", "bare", "Wrapped"])
def test_a_network_from_a_function(function: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state, x = viewing(), torch.rand(2, 3, 8, 8).to(memory_format=torch.channels_last)
    found = foreign_model(f"my_networks:{function}", saved(here / "w.pt", prefixed("model.", state)), **SMALL)
    torch.testing.assert_close(found.model(x), viewing_forward(state, x))
    assert capsys.readouterr().out == "" and str(here) not in os.sys.path


def test_a_network_that_normalises_itself(here: Path) -> None:
    state, x = viewing(), torch.rand(2, 3, 8, 8)
    path = saved(here / "w.pt", state)
    found = foreign_model("my_networks:Normalising", path, **SMALL)
    assert found.normalisation == "network" and found.mean == [0.0] * 3
    torch.testing.assert_close(found.model(x), viewing_forward(state, (x - 0.5) / 0.25))
    with pytest.raises(UsageError, match="its own mu and sigma"):
        foreign_model("my_networks:Normalising", path, mean=[0.5] * 3, std=[1.0] * 3, **SMALL)
    own = state | {"mu": torch.zeros(1, 3, 1, 1), "sigma": torch.ones(1, 3, 1, 1)}
    found = foreign_model("my_networks:Normalising", saved(here / "own.pt", own), **SMALL)
    torch.testing.assert_close(found.model(x), viewing_forward(state, x))


def test_torchvision_s_networks(tmp_path: Path) -> None:
    models = pytest.importorskip("torchvision.models")
    original, x = models.squeezenet1_1(num_classes=4).eval(), torch.rand(2, 3, 32, 32)
    path = saved(tmp_path / "t.pt", original.state_dict())
    found = foreign_model("torchvision.models:squeezenet1_1", path, classes=4, channels=3, size=32)
    torch.testing.assert_close(found.model(x), original(x))


def test_wrappers_and_prefixes_are_removed(tmp_path: Path) -> None:
    tensor = torch.ones(2)
    for content in (
        {"a.b": tensor},
        {"state_dict": {"module.a.b": tensor}, "lr": tensor},
        {"model": {"net": {"_orig_mod.model.a.b": tensor}}, "epoch": 1},
        {"weights of the best epoch": {"network.a.b": tensor}, "epoch": 1},
    ):
        assert list(taken(saved(tmp_path / "w.th", content), {"a.b": tensor})) == ["a.b"]


class Hostile:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("unpickled",)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("args.pt", {"args": argparse.Namespace(), "state_dict": {"a": torch.ones(1)}}, "argparse.Namespace"),
        ("whole.pt", nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        ("hostile.pt", Hostile(), "mkdir"),
        ("bytearray.pt", {"a": torch.ones(1), "b": bytearray(1000)}, "bytearray"),
        ("bytes.pt", {"a": torch.ones(1), "b": b"1000"}, "_codecs.encode"),
        ("long.pt", {"a": torch.ones(1), "b": [{} for _ in range(600_000)]}, "a pickle of more than 1048576 bytes"),
        ("list.pt", [torch.ones(1)], "a list"),
        ("none.pt", {"epoch": 3}, "a dict of epoch"),
        ("empty.pt", {}, "an empty dict"),
    ],
)
def test_other_pickles_than_state_dicts_are_refused_without_unpickling(
    name: str, content: object, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=said) as refused:
        taken(saved(tmp_path / name, content))
    one_line(refused.value, str(tmp_path / name))
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize("zipped", [False, True])
def test_a_pickle_that_makes_bytes_of_a_number_is_refused(zipped: bool, tmp_path: Path) -> None:
    class Vast:
        def __reduce__(self) -> tuple[object, ...]:
            return bytearray, (400_000_000,)

    torch.save({"a": torch.ones(1), "b": Vast()}, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match="holds more than tensors .*bytearray") as refused:
        taken(tmp_path / "w.pt")
    one_line(refused.value, str(tmp_path / "w.pt"))


@pytest.mark.parametrize(
    ("kind", "tensor"),
    [
        ("sparse", torch.eye(3).to_sparse()),
        ("csr", torch.eye(3).to_sparse_csr()),
        ("meta", torch.ones(3, device="meta")),
        ("quantised", torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)),
        ("complex", torch.ones(3, dtype=torch.complex64)),
    ],
)
def test_tensors_that_are_not_plain_are_refused(kind: str, tensor: Tensor, tmp_path: Path) -> None:
    network = {"mean": tensor, "std": torch.ones(3), **kuangliu(4)}
    torch.save(network, tmp_path / "w.pt")
    with pytest.raises(
        InputError, match="holds more than tensors|mean is not a dense tensor of real numbers"
    ) as refused:
        foreign_model("resnet18-4", tmp_path / "w.pt", **CIFAR)
    one_line(refused.value, str(tmp_path / "w.pt"))


def test_complex_tensors_of_safetensors_are_refused(tmp_path: Path) -> None:
    save_file({"a": torch.ones(3, dtype=torch.complex64)}, tmp_path / "w.safetensors")
    with pytest.raises(
        InputError, match="a is not a dense tensor of real numbers .complex64, strided, on cpu."
    ) as refused:
        taken(tmp_path / "w.safetensors")
    one_line(refused.value, str(tmp_path / "w.safetensors"))


@pytest.mark.parametrize("zipped", [False, True])
def test_what_training_scripts_keep_beside_the_weights_is_read(zipped: bool, tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(torch.ones(2, 3, 8, 8)).sum().backward()
    optimiser.step()
    kept = {"net": net.state_dict(), "optimizer": optimiser.state_dict(), "acc": 0.5, "name": "é", "best": None}
    kept |= {"size": torch.ones(1).shape, "dtype": torch.float16, "seen": {1, 2}, "list": list(net.parameters())}
    kept["half"] = {"a": torch.ones(3, dtype=torch.bfloat16)}
    torch.save(kept, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    assert taken(tmp_path / "w.pt", net.state_dict()).keys() == net.state_dict().keys()


def one_line(error: BskError, start: str) -> None:
    assert str(error).startswith(start) and "\n" not in str(error) and ";" in str(error)


def test_missing_or_truncated_files_are_refused(tmp_path: Path) -> None:
    whole = saved(tmp_path / "w.pt", {"a": torch.ones(1000)}).read_bytes()
    for name, content in {
        "torn.pt": whole[: len(whole) // 2],
        "text.pth": b"hello\nworld",
        "empty.bin": b"",
        "pickle.pkl": pickle.dumps({"a": 1}, protocol=4),
        "torn.safetensors": whole[:50],
    }.items():
        (tmp_path / name).write_bytes(content)
    for name in ("torn.pt", "text.pth", "empty.bin", "pickle.pkl", "torn.safetensors", "no.pt", "no.safetensors", "."):
        with pytest.raises(InputError) as refused:
            taken(tmp_path / name)
        one_line(refused.value, str(tmp_path / name))


def test_a_file_that_expands_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "w.pt", {"a": torch.zeros(1 << 20)})
    deflated = zipfile.ZipFile(tmp_path / "deflated.pt", "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(tmp_path / "w.pt") as whole, deflated:
        for member in whole.infolist():
            deflated.writestr(member.filename, whole.read(member))
    with pytest.raises(InputError, match="expands to 41.* bytes, unlike any file of torch.save") as refused:
        taken(tmp_path / "deflated.pt")
    one_line(refused.value, str(tmp_path / "deflated.pt"))


def test_dicts_in_dicts_without_end_are_no_weights(tmp_path: Path) -> None:
    itself: dict[str, object] = {}
    itself["x"] = itself
    doubled: dict[str, object] = {}
    for _ in range(40):
        doubled = {"a": doubled, "b": doubled}
    deep: dict[str, object] = {"w": torch.ones(1)}
    for _ in range(200):
        deep = {"a": deep}
    for content in (itself, doubled, deep):
        with pytest.raises(InputError, match="expected tensors by name, found a dict of"):
            taken(saved(tmp_path / "w.pt", content))


def test_a_duplicate_tensor_is_refused(tmp_path: Path) -> None:
    entry = '"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}'
    head = f"{{{entry}, {entry}}}".encode()
    (tmp_path / "w.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + bytes(8))
    with pytest.raises(InputError, match="duplicate key 'w'") as refused:
        taken(tmp_path / "w.safetensors")
    one_line(refused.value, str(tmp_path / "w.safetensors"))


def test_names_and_shapes_that_do_not_fit_are_named(tmp_path: Path) -> None:
    def refusal(state: State, model: str = "wrn-10-1") -> str:
        with pytest.raises(InputError) as refused:
            foreign_model(model, saved(tmp_path / "w.pt", state), **CIFAR)
        one_line(refused.value, f"{tmp_path / 'w.pt'}: does not fit {model}: ")
        return str(refused.value)

    lacking = wide(10, 1)
    del lacking["block2.layer.0.conv1.weight"], lacking["fc.bias"]
    assert "2 missing (block2.layer.0.conv1.weight; fc.bias)" in refusal(lacking)
    assert "1 unexpected (extra.weight)" in refusal(wide(10, 1) | {"extra.weight": torch.ones(1)})
    assert "fc.weight (100, 64), expected (10, 64)" in refusal(wide(10, 1, classes=100))
    assert "missing" in (said := refusal(kuangliu(4))) and "; ...)" in said
    assert "unexpected" in refusal(wide(16, 1))
    assert "missing" in refusal(kuangliu(4), "resnet50-4")


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("resnet19", "did you mean resnet18.*module:function"),
        ("my_networks:nothing", "my_networks has no nothing; "),
        ("my_networks:broken", "ValueError: of mine;"),
        ("my_networks:number", "found int"),
        ("no_such_module_anywhere:net", "no module no_such_module_anywhere here"),
        (":net", "expected module:function"),
        ("cnn-a", "is for images"),
    ],
)
def test_invalid_models_are_refused(model: str, said: str, here: Path) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        foreign_model(model, saved(here / "w.pt", viewing()), **SMALL)
    one_line(refused.value, "--model")


def test_logits_for_other_classes_are_refused(here: Path) -> None:
    five = viewing() | {"fc.weight": torch.ones(5, 128), "fc.bias": torch.ones(5)}
    path = saved(here / "w.pt", five)
    with pytest.raises(InputError, match=r"expected logits \(2, 4\).*found \(2, 5\)") as refused:
        foreign_model("my_networks:five", path, **SMALL)
    one_line(refused.value, str(path))
    with pytest.raises(InputError, match="expected logits"):
        foreign_model("my_networks:five", path, classes=5, channels=3, size=9)


@pytest.mark.parametrize(
    ("mean", "std", "said"),
    [
        ([0.5], [0.5, 0.5, 0.5], "--mean: 1 numbers"),
        ([0.5] * 3, None, "--std: missing"),
        (None, [0.5] * 3, "--mean: missing"),
        ([0.5] * 3, [0.5, 0.0, 0.5], "above 0"),
        ([0.5] * 3, [0.5, float("nan"), 0.5], "finite"),
    ],
)
def test_invalid_normalisation_flags_are_refused(mean: object, std: object, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        foreign_model("cnn", tmp_path / "w.pt", mean=mean, std=std, **CIFAR)


def test_the_global_random_state_stays(tmp_path: Path) -> None:
    path = saved(tmp_path / "c.pt", network("cnn", 10, 3, 32).state_dict())
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    assert isinstance(foreign_model("cnn", path, **CIFAR), Foreign)
    assert torch.equal(torch.rand(3), expected)
