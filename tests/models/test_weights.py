"""Typical checkpoints of users: each is loaded as the plain network, or refused with the reason."""

import copy
import itertools
import json
import pickle
import re
import shlex
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_model, save_file, save_model
from torch import Tensor, nn
from torch.nn.utils import weight_norm
from torch.optim.swa_utils import AveragedModel

from bsk.data.store import open_data
from bsk.errors import InputError, UsageError
from bsk.evaluation.subjects import foreign_subject
from bsk.models.files import contents
from bsk.models.fitting import Target
from bsk.models.foreign import Foreign, foreign_model
from bsk.records import jsonl as records

State = dict[str, Tensor]
NET = """
import torch
from torch import nn
from torch.nn.utils import parametrizations
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(144, 3)
    def forward(self, x):
        return self.fc(torch.relu(self.bn(self.conv(x))).flatten(1))
class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(64, 64), nn.Linear(64, 64)
        self.b.weight, self.fc = self.a.weight, nn.Linear(64, 3)
    def forward(self, x):
        return self.fc(torch.relu(self.b(torch.relu(self.a(x.flatten(1))))))
class Normed(Net):
    def __init__(self):
        super().__init__()
        parametrizations.weight_norm(self.conv), parametrizations.weight_norm(self.fc)
class Normalising(Net):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.5]))
        self.register_buffer("std", torch.tensor([0.2]))
    def forward(self, x):
        return super().forward((x - self.mean) / self.std)
class Constant(Net):
    def forward(self, x):
        return super().forward((x - 0.5) / 0.2)
class Learned(Net):
    def __init__(self):
        super().__init__()
        self.mu, self.sigma = nn.Parameter(torch.tensor([0.5])), nn.Parameter(torch.tensor([0.2]))
    def forward(self, x):
        return super().forward((x - self.mu) / self.sigma)
def linear(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
"""
TOY = {"classes": 3, "channels": 1, "size": 8}


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "theirnets.py").write_text(NET)
    import theirnets

    yield theirnets
    sys.modules.pop("theirnets", None)


@pytest.fixture
def net(nets) -> nn.Module:
    return random(nets.Net(), 1)


@pytest.fixture
def x() -> Tensor:
    return torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(3))


def random(network: nn.Module, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
    return network.eval()


def read(content: object, model: str = "Net", **more: object) -> Foreign:
    path = Path("w.pt")
    torch.save(content, path)
    return foreign_model(f"theirnets:{model}", path, **TOY, **more)


def under(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    "beside",
    [
        {"mean": [0.3], "std": [0.4]},
        {"normalize": {"mean": (0.3,), "std": (0.4,)}, "epoch": 3},
        {"args": {"data": {"mu": torch.tensor([0.3]), "sigma": torch.tensor([[[0.4]]])}}},
        {"loss": {"mean": [0.5, 0.1], "std": [0.2, 0.1]}, "transform": {"mean": [0.3], "std": [0.4]}},
        {"mean": 0.3, "std": 0.4},
        {"hyper_parameters": {"lr": 0.1, "mean": [0.3], "std": [0.4]}},  # as Lightning saves them
        {
            "cv": {"mean": 0.91, "std": 0.02},
            "transform": {"mean": 0.3, "std": 0.4},
            "age": {"mean": [54.0], "std": [12.0]},
        },
        {"MEAN": np.array([0.3]), "STD": np.float64(0.4).reshape(1)},
        {"val_loss.mean": torch.tensor(0.7), "val_loss.std": torch.tensor(0.2), "mean": [0.3], "std": [0.4]},
    ],
)
def test_mean_and_std_in_another_dict_of_the_file_normalise_once(beside: State, net: nn.Module, x: Tensor) -> None:
    found = read({"state_dict": net.state_dict(), **beside})
    assert found.normalisation == "weights"
    torch.testing.assert_close(found.model(x), net((x - 0.3) / 0.4))


@pytest.mark.parametrize(
    "beside",
    [
        {"loss": {"mean": [30.0], "std": [0.4]}},
        {"val_loss": {"mean": [0.7], "std": [0.2]}},
        {"mean": ["0.3"], "std": [0.4]},
        {"args": {"mean": None, "std": None}},
        {"results": {"mean": 0.91, "std": 0.02}, "seed": 10**400},
        {"age": {"mean": [54.1], "std": [12.0]}},
        {"mean": [0.3]},
    ],
)
def test_implausible_mean_and_std_are_not_used(beside: State, net: nn.Module, x: Tensor) -> None:
    found = read({"state_dict": net.state_dict(), **beside})
    assert found.normalisation == "none" and torch.equal(found.model(x), net(x))


def test_numbers_of_metrics_in_the_state_dict_normalise_nothing(net: nn.Module, x: Tensor) -> None:
    meters = {"val_loss.mean": torch.tensor(0.7), "val_loss.std": torch.tensor(0.3)}
    meters |= {"meter.mean": torch.tensor([0.7]), "meter.std": torch.tensor([0.3])}
    found = read({"state_dict": {**under("model.", net.state_dict()), **meters}})
    assert found.normalisation == "none" and torch.equal(found.model(x), net(x))
    norm = {"norm.mean": torch.tensor(0.3), "norm.std": torch.tensor(0.4)}
    found = read({"state_dict": {**under("model.", net.state_dict()), **meters, **norm}})
    assert found.normalisation == "weights" and [*found.mean, *found.std] == pytest.approx([0.3, 0.4])


def test_scalars_of_a_first_part_normalise_every_channel() -> None:
    state = {"0.mean": torch.tensor([0.5]), "0.std": torch.tensor([0.25]), "acc.mean": torch.tensor(0.9)}
    own = {"conv.weight": torch.zeros(2, 3, 3, 3), "fc.weight": torch.zeros(2, 2)}
    given = {**state, "acc.std": torch.tensor(0.1), **under("1.", own)}
    (fit,) = Target("theirnets:Net", own, 3).fits(given)
    assert fit.pair == {"0.mean": [0.5] * 3, "0.std": [0.25] * 3}


def test_a_normalisation_for_levels_in_the_state_dict_is_refused(net: nn.Module) -> None:
    norm = {"norm.mean": torch.tensor([77.0]), "norm.std": torch.tensor([95.0])}
    with pytest.raises(
        InputError, match=r"its norm.mean and norm.std .*are not those of pixels in \[0, 1\]; give --mean"
    ):
        read({"state_dict": {**under("model.", net.state_dict()), **norm}})


@pytest.mark.parametrize("given", ["file", "flags"])
def test_a_network_that_changes_images_itself_is_told(given: str, net: nn.Module, toy: Path) -> None:
    pair = {"mean": [0.5], "std": [0.2]}
    torch.save({"state_dict": net.state_dict(), **(pair if given == "file" else {})}, "w.pt")
    flags = tuple(pair.values()) if given == "flags" else (None, None)
    for model, twice in (("Constant", True), ("Net", False)):
        subject = foreign_subject(f"theirnets:{model}", Path("w.pt"), open_data(toy), *flags, None)
        assert any("so they may be normalised twice" in said for said in subject.notices) is twice
    used = [said for said in subject.notices if said.endswith("normalised by what the file has: mean 0.5, std 0.2")]
    assert len(used) == (given == "file")


def test_what_a_network_learns_is_not_its_normalisation_and_what_it_has_must_be_in_the_file(
    nets, net: nn.Module, x: Tensor, toy: Path
) -> None:
    with pytest.raises(InputError, match=r"does not fit theirnets:Learned: 2 missing \(mu; sigma\)"):
        read({"state_dict": net.state_dict()}, "Learned")
    learned = random(nets.Learned(), 2)
    found = read({"state_dict": learned.state_dict()}, "Learned")
    assert found.normalisation == "network" and torch.equal(found.model(x), learned(x))  # once
    notices = foreign_subject("theirnets:Learned", Path("w.pt"), open_data(toy), None, None, None).notices
    assert not any("not normalised" in said for said in notices)
    found = read({"state_dict": net.state_dict()}, "Normalising")
    assert found.normalisation == "network" and list(found.absent) == ["mean", "std"]
    notices = foreign_subject("theirnets:Normalising", Path("w.pt"), open_data(toy), None, None, None).notices
    assert any("has no mean and std; the network's own are used" in said for said in notices)
    read({"state_dict": net.state_dict(), "mean": [0.5], "std": [0.2]}, "Normalising")  # they agree
    with pytest.raises(InputError, match=r"has mean and std, but not theirnets:Normalising's own mean and std; save"):
        read({"state_dict": net.state_dict(), "mean": [0.3], "std": [0.4]}, "Normalising")


def test_whole_numbers_are_not_weights_and_tied_tensors_are_equal(nets, net: nn.Module) -> None:
    state = {name: (100 * each).to(torch.int8) if "conv" in name else each for name, each in net.state_dict().items()}
    with pytest.raises(
        InputError, match=r"2 of another type \(conv.weight torch.int8, expected torch.float32; conv.bias"
    ):
        read(state)
    tied = {name: tensor.clone() for name, tensor in random(nets.Tied(), 1).state_dict().items()}
    assert read(tied, "Tied").normalisation == "none"
    with pytest.raises(InputError, match=r"1 tied in the network but different \(b.weight\)"):
        read({**tied, "b.weight": tied["b.weight"] + 1}, "Tied")


@pytest.mark.parametrize("beside", [{"mean": [77.0], "std": [95.0]}, {"norm": {"mean": [0.3], "std": [0.0]}}])
def test_mean_and_std_for_other_pixels_are_refused_unless_flags_replace_them(beside: State, net: nn.Module) -> None:
    with pytest.raises(
        InputError, match=r"its mean and std( in norm)? are not those of pixels in \[0, 1\]; give --mean"
    ):
        read({"state_dict": net.state_dict(), **beside})
    assert read({"state_dict": net.state_dict(), **beside}, mean=[0.3], std=[0.4]).normalisation == "flags"


@pytest.mark.parametrize(
    "order", [p for n in range(4) for p in itertools.permutations(["module", "_orig_mod", "avg"], n)]
)
def test_wrappings_in_any_order(order: tuple[str, ...], net: nn.Module, x: Tensor) -> None:
    state = net.state_dict()
    for wrapping in order:
        state = under("module." if wrapping == "avg" else f"{wrapping}.", state)
        state |= {"n_averaged": torch.tensor(4)} if wrapping == "avg" else {}
    found = read({"epoch": 3, "model": state})
    assert torch.equal(found.model(x), net(x)) and found.weights.others == ()
    assert [name.rpartition(".")[2] for name in found.dropped] == ["n_averaged"] * ("avg" in order)


def test_torchs_own_wrappers(net: nn.Module, x: Tensor) -> None:
    for wrapped in (AveragedModel(net), AveragedModel(nn.DataParallel(net)), nn.DataParallel(AveragedModel(net))):
        assert torch.equal(read(wrapped.state_dict()).model(x), net(x))


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("attacker_first", [False, True])
def test_the_normalisation_of_robustness_is_applied_once(
    parallel: bool, attacker_first: bool, net: nn.Module, x: Tensor
) -> None:
    pair = {"new_mean": torch.tensor([[[0.3]]]), "new_std": torch.tensor([[[0.4]]])}
    model, attacker = under("model.", net.state_dict()), under("attacker.normalize.", pair)
    attacker |= under("attacker.model.", net.state_dict())
    parts = [attacker, model] if attacker_first else [model, attacker]
    state = under("normalizer.", pair) | parts[0] | parts[1]
    found = read({"model": under("module.", state) if parallel else state, "optimizer": {}, "epoch": 5})
    assert found.normalisation == "weights"
    torch.testing.assert_close(found.model(x), net((x - 0.3) / 0.4))
    assert [name.removeprefix("module.") for name in found.dropped] == ["attacker.*"]
    assert found.weights.others == () and ".attacker" not in found.weights.key
    flags = read({"model": state}, mean=[0.0], std=[1.0])
    assert torch.equal(flags.model(x), net(x)) and {"normalizer.new_mean", "attacker.*"} <= set(flags.dropped)


def test_a_network_that_normalises_itself_is_not_normalised_again(nets, x: Tensor) -> None:
    own = random(nets.Normalising(), 2)
    found = read(under("module.", own.state_dict()), "Normalising")
    assert found.normalisation == "network" and torch.equal(found.model(x), own(x))
    outer = {"normalizer.mean": torch.tensor([0.1]), "normalizer.std": torch.tensor([0.3])}
    with pytest.raises(InputError, match=r"2 unexpected \(normalizer.mean; normalizer.std\)"):
        read(outer | under("model.", own.state_dict()), "Normalising")


@pytest.mark.parametrize("prefix", ["model.", "net.", "classifier.", "model.module.", ""])
def test_ignored_content_of_a_file_is_reported(prefix: str, net: nn.Module, x: Tensor) -> None:
    beside = {"criterion.weight": torch.ones(10), "loss_fn.a": torch.ones(1), "loss_fn.b": torch.ones(1)}
    content = {"pytorch-lightning_version": "2.6.6", "state_dict": under(prefix, net.state_dict()) | beside}
    found = read(content)
    assert torch.equal(found.model(x), net(x)) and found.dropped == ["criterion.weight", "loss_fn.*"]
    with pytest.raises(InputError, match=r"1 unexpected \(extra\)"):
        read(under("module.", {**net.state_dict(), "extra": torch.ones(1)}))


@pytest.mark.parametrize("name", ["state_dict", "net", "model", "model_state_dict", "network", "module", "weights"])
@pytest.mark.parametrize("average", ["ema", "model_ema", "ema_state_dict", "swa", "state_dict_ema"])
def test_a_key_chooses_among_sets_of_weights(name: str, average: str, nets, net: nn.Module, x: Tensor) -> None:
    other = random(nets.Net(), 9)
    content = {average: under("module.", other.state_dict()), name: net.state_dict(), "epoch": 3}
    default = read(content)
    assert torch.equal(default.model(x), net(x)) and default.weights.first
    assert default.weights.key == name and default.weights.others == (f"{average}.module",)
    for key in (average, f"{average}.module", "swa" if average == "swa" else "ema"):
        chosen = read(content, key=key)
        assert torch.equal(chosen.model(x), other(x)) and not chosen.weights.first
    assert read(content, key=name).weights.first
    with pytest.raises(UsageError, match=f"--weights-key best: .* no such set .* {name}, {average}.module$"):
        read(content, key="best")


def test_sets_beside_each_other_under_prefixes(nets, net: nn.Module, x: Tensor) -> None:
    other, third = random(nets.Net(), 9), random(nets.Net(), 10)
    state = under("ema_model.module.", other.state_dict()) | under("model.", net.state_dict())
    assert torch.equal(read({"state_dict": state}).model(x), net(x))
    assert torch.equal(read({"state_dict": state}, key="ema_model").model(x), other(x))
    plain = net.state_dict() | under("ema.", other.state_dict())
    assert torch.equal(read(plain).model(x), net(x)) and read(plain).weights.others == ("ema",)
    assert torch.equal(read(plain, key="ema").model(x), other(x)) and read(plain, key=".").weights.first
    nested = {"model": net.state_dict(), "ema": {"0.9": other.state_dict(), "0.99": third.state_dict()}}
    assert torch.equal(read(nested, key="0.99").model(x), third(x))
    with pytest.raises(UsageError, match=r"has several sets of weights of that name; give one of ema.0.9, ema.0.99"):
        read(nested, key="ema")


def test_an_average_without_names_is_a_set_too(nets, net: nn.Module, x: Tensor) -> None:
    """As torch_ema keeps it: the parameters in their order, no statistics of batch norm."""
    other = random(nets.Net(), 9)
    shadow = [each.detach().clone() for each in other.parameters()]
    average = {"decay": 0.999, "num_updates": 3, "shadow_params": shadow, "collected_params": None}
    content = {"model": net.state_dict(), "ema": average}
    default = read(content)
    assert torch.equal(default.model(x), net(x)) and default.weights.others == ("ema.shadow_params",)
    expected = copy.deepcopy(net)
    expected.load_state_dict(dict(other.named_parameters()), strict=False)
    for key in ("ema", "shadow_params"):
        chosen = read(content, key=key)
        assert torch.equal(chosen.model(x), expected(x)) and not chosen.weights.first
    average["shadow_params"] = shadow[::-1]  # another network's
    assert read(content).weights.others == ()
    content["itself"] = content
    assert torch.equal(read(content).model(x), net(x))


def test_the_state_of_an_optimiser_is_no_set_of_weights(net: nn.Module, x: Tensor) -> None:
    optimiser = torch.optim.Adam(net.parameters())
    net(x).sum().backward()
    optimiser.step()
    found = read({"optimizer": optimiser.state_dict(), "weights": net.state_dict()})
    assert torch.equal(found.model(x), net(x)) and found.weights.others == ()


def test_a_set_that_is_chosen_and_does_not_fit_is_told(net: nn.Module) -> None:
    shadow = {name: tensor for name, tensor in net.state_dict().items() if "running" not in name}
    with pytest.raises(InputError, match="2 missing .bn.running_mean; bn.running_var."):
        read({"state_dict": net.state_dict(), "ema": shadow}, key="ema")


def test_a_single_layer_is_not_found_in_any_other(nets, x: Tensor) -> None:
    layer = random(nets.linear(), 4)
    assert torch.equal(
        read({"n_averaged": torch.ones(1), **under("module.", layer.state_dict())}, "linear").model(x), layer(x)
    )
    many = under("3.", layer[1].state_dict()) | under("5.", layer[1].state_dict())
    with pytest.raises(InputError, match="does not fit theirnets:linear"):
        read(many, "linear")


NUMBERS = [
    np.float64(52.1),
    np.float32(1.5),
    np.int64(-7),
    np.bool_(True),
    np.arange(6).reshape(2, 3),
    np.ones(3, ">f4"),
]
NUMBERS += [np.random.RandomState(0).get_state(), np.asfortranarray(np.eye(3)), np.zeros((0, 4)), np.uint8(3)]


@pytest.mark.parametrize("zipped", [False, True])
def test_numbers_of_numpy_beside_the_weights(zipped: bool, net: nn.Module, x: Tensor) -> None:
    content = {"state_dict": net.state_dict(), "best_acc": np.float64(52.1), "kept": NUMBERS, "again": NUMBERS[0]}
    torch.save(content, "w.pt", _use_new_zipfile_serialization=zipped)
    allowed = set(torch.serialization.get_safe_globals())
    assert torch.equal(foreign_model("theirnets:Net", Path("w.pt"), **TOY).model(x), net(x))
    assert set(torch.serialization.get_safe_globals()) == allowed


def test_numpy_numbers_keep_their_values() -> None:
    from bsk.models.numpy_numbers import STAND_INS

    def rebuilt(value: object) -> object:
        class Reader(pickle.Unpickler):
            def find_class(self, module: str, name: str) -> object:
                return STAND_INS.get((module, name)) or super().find_class(module, name)

        import io

        return Reader(io.BytesIO(pickle.dumps(value, protocol=2))).load()

    for number in NUMBERS[:4]:
        assert rebuilt(number) == number and type(rebuilt(number)) in (float, int, bool)
    for array in (*NUMBERS[4:6], *NUMBERS[7:9]):
        assert np.array_equal(rebuilt(array).numbers, array)


class Calls:
    """A pickle that calls something harmless by a name."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[object, ...]:
        return self.call


def encode(*arguments: object) -> Calls:
    import _codecs

    return Calls(_codecs.encode, *arguments)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (np.array([None, "text"], dtype=object), "'O8'"),
        (np.array(["text"]), "'U4'"),
        (np.datetime64("2026-01-01"), "'M8'"),
        (np.frombuffer, "numpy._core.multiarray.frombuffer|numpy.frombuffer"),
        ([np.float64(1), encode("a", "rot13")], "not encoded as Latin-1"),
        ([np.float64(1), encode("a", "no_such_codec")], "not encoded as Latin-1"),
        (
            [np.float64(1), *(encode("a" * 400_000, "latin1") for _ in range(3))],
            "more than 1048576 bytes|a pickle of more",
        ),
        (
            [np.float64(1), Calls(torch._tensor._rebuild_from_type_v2, print, dict, ("harmless",), {})],
            "builtins.print|__builtin__.print",
        ),
    ],
)
def test_invalid_numbers_are_refused_before_allocation(
    content: object, said: str, zipped: bool, net: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"state_dict": net.state_dict(), "x": content}, "w.pt", _use_new_zipfile_serialization=zipped)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch read it"))
    with pytest.raises(InputError, match=said) as refused:
        foreign_model("theirnets:Net", Path("w.pt"), **TOY)
    assert "\n" not in str(refused.value)


def test_a_text_that_is_encoded_again_and_again_is_refused(net: nn.Module) -> None:
    """One text of the pickle, encoded a thousand times, would be larger than the file."""
    import _codecs

    class Again:
        text = "a" * 10_000

        def __reduce__(self) -> tuple[object, ...]:
            return _codecs.encode, (self.text, "latin1")

    with pytest.raises(InputError, match="numbers of more than 1048576 bytes"):
        read({"state_dict": net.state_dict(), "a": np.float64(1), "b": [Again() for _ in range(1000)]})


def test_bytes_are_not_made_by_way_of_a_tensor_s_type(net: nn.Module) -> None:
    import _codecs

    calling = Calls(torch._tensor._rebuild_from_type_v2, _codecs.encode, torch.Tensor, ("a", "latin1"), {})
    with pytest.raises(InputError, match="_rebuild_from_type_v2"):
        read({"state_dict": net.state_dict(), "a": np.float64(1), "b": calling})


def run_what_it_says(message: str) -> Path:
    """Run the command at the end of a message; return the file that it writes."""
    python, flag, code = shlex.split(message[message.index("python -c ") :])
    assert (python, flag) == ("python", "-c")
    exec(code, {})
    return Path(re.findall(r'"([^"]+)"', code)[-1])


def test_protocol_4_is_told_with_what_converts_it(net: nn.Module, x: Tensor) -> None:
    torch.save({"state_dict": net.state_dict(), "epoch": 1}, "it's four.pt", pickle_protocol=4)
    with pytest.raises(InputError, match="pickle protocol 4; torch's safe reader knows 2.* if you trust") as refused:
        foreign_model("theirnets:Net", Path("it's four.pt"), **TOY)
    converted = run_what_it_says(str(refused.value))
    assert torch.equal(foreign_model("theirnets:Net", converted, **TOY).model(x), net(x))


def test_protocol_3_is_read_but_for_its_bytes(net: nn.Module, x: Tensor) -> None:
    torch.save(net.state_dict(), "w.pt", pickle_protocol=3)
    assert torch.equal(foreign_model("theirnets:Net", Path("w.pt"), **TOY).model(x), net(x))
    torch.save({"net": net.state_dict(), "acc": np.float64(1)}, "w.pt", pickle_protocol=3)
    with pytest.raises(InputError, match="pickle protocol 3"):
        foreign_model("theirnets:Net", Path("w.pt"), **TOY)


def test_torchscript_and_export_are_named_with_the_next_step(net: nn.Module, x: Tensor) -> None:
    torch.jit.script(net).save("script.pt")
    torch.jit.trace(net, x).save("trace.pt")
    torch.export.save(torch.export.export(net, (x,)), "exported.pt2")
    for name, said in (("script.pt", "TorchScript"), ("trace.pt", "TorchScript"), ("exported.pt2", "torch.export")):
        with pytest.raises(InputError, match=f"{name}: is a file of {said}") as refused:
            foreign_model("theirnets:Net", Path(name), **TOY)
        weights = run_what_it_says(str(refused.value))
        assert torch.equal(foreign_model("theirnets:Net", weights, **TOY).model(x), net(x))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x08\x0a\x12\x07pytorch", "ONNX"),
    ],
)
def test_other_kinds_of_files_are_named(content: bytes, said: str, nets) -> None:
    Path("w.pt").write_bytes(content)
    with pytest.raises(InputError, match=f"w.pt: is .*{said}"):
        foreign_model("theirnets:Net", Path("w.pt"), **TOY)
    np.savez("w.npz", a=np.ones(3))
    with pytest.raises(InputError, match="is a zip archive, not of torch.save"):
        foreign_model("theirnets:Net", Path("w.npz"), **TOY)


@pytest.mark.parametrize("cut", [1, 200, 1618, 2157])
def test_an_archive_without_some_bytes_is_not_whole(cut: int, tmp_path: Path) -> None:
    """Members may then begin before the file does, and reading them is an error of the system's."""
    torch.save({"w": torch.arange(400.0)}, tmp_path / "w.pt")
    content = (tmp_path / "w.pt").read_bytes()
    (tmp_path / "w.pt").write_bytes(content[:cut] + content[cut + 1 :])
    with pytest.raises(InputError, match="w.pt: not a whole (zip archive|file of torch.save)"):
        contents(tmp_path / "w.pt")


def test_the_content_says_the_kind_of_file_and_not_its_name(net: nn.Module, x: Tensor) -> None:
    torch.save(net.state_dict(), "torch.safetensors")
    save_file(net.state_dict(), "safe.pt")
    for name in ("torch.safetensors", "safe.pt"):
        assert torch.equal(foreign_model("theirnets:Net", Path(name), **TOY).model(x), net(x))


def test_the_old_names_of_weight_norm(nets, x: Tensor) -> None:
    old = random(nets.Net(), 5)
    weight_norm(old.conv), weight_norm(old.fc)
    with torch.no_grad():
        old.conv.weight_g.mul_(1.5), old.fc.weight_v.mul_(-2)
    hooked = nets.Normed().eval()
    hooked.load_state_dict(old.state_dict())
    found = read({"state_dict": under("module.", old.state_dict())}, "Normed")
    assert torch.equal(found.model(x), hooked(x))
    torch.testing.assert_close(found.model(x), old(x))


@pytest.mark.parametrize("missing", ["a.weight", "b.weight"])
def test_two_names_for_one_tensor(missing: str, nets, x: Tensor) -> None:
    tied = random(nets.Tied(), 6)
    save_model(tied, "tied.safetensors")
    again = nets.Tied().eval()
    load_model(again, "tied.safetensors")
    found = foreign_model("theirnets:Tied", Path("tied.safetensors"), **TOY)
    assert torch.equal(found.model(x), again(x)) and torch.equal(again(x), tied(x))
    state = OrderedDict((name, tensor) for name, tensor in tied.state_dict().items() if name != missing)
    assert torch.equal(read(state, "Tied").model(x), tied(x))
    del state["fc.bias"]
    with pytest.raises(InputError, match=r"1 missing \(fc.bias\)"):
        read(state, "Tied")


def test_the_identity_is_that_of_what_is_loaded(nets, net: nn.Module, toy: Path) -> None:
    data, cpu = open_data(toy), torch.device("cpu")
    other = random(copy.deepcopy(net), 8)
    torch.save({"state_dict": net.state_dict(), "ema": other.state_dict()}, "w.pt")

    def subject(key: str | None) -> object:
        return foreign_subject("theirnets:Net", Path("w.pt"), data, [0.0], [1.0], cpu, key)

    default, ema = subject(None), subject("ema")
    assert default.sha256 == subject("state_dict").sha256 == records.sha256(Path("w.pt")) != ema.sha256
    assert default.notices == (
        "w.pt: has several sets of weights; using state_dict; --weights-key selects another of ema",
    )
    assert ema.notices == ()
    torch.save({"state_dict": random(copy.deepcopy(net), 11).state_dict(), "ema": other.state_dict()}, "w.pt")
    assert subject("ema").sha256 == ema.sha256 and subject(None).sha256 != default.sha256


def test_the_commands_take_the_key(call, nets, net: nn.Module, toy: Path) -> None:
    other = random(copy.deepcopy(net), 8)
    torch.save({"state_dict": net.state_dict(), "ema": other.state_dict()}, "w.pt")
    words = [
        "evaluate",
        "--model",
        "theirnets:Net",
        "--weights",
        "w.pt",
        "--data",
        toy,
        "--attack",
        "natural",
        "--eps",
        0.1,
    ]
    default = call(*words)
    assert "using state_dict; --weights-key selects another of ema" in default.stderr
    ema = call(*words, "--weights-key", "ema")
    keys = [json.loads(each.stdout)["key"] for each in (default, ema, call(*words, "--weights-key", "state_dict"))]
    assert keys[0] == keys[2] != keys[1]
    assert "give one of state_dict, ema" in call(*words, "--weights-key", "best", check=2).line
    assert "--weights-key" in call("evaluate", "m.safetensors", "--weights-key", "ema", check=2).line
    for more in ([], ["--model", "theirnets:Net"]):
        said = call("evaluate", "w.pt", *more, "--data", toy, check=2).line
        assert "w.pt: is a file of torch.save" in said and "use --model and --weights w.pt" in said
    save_file({"linear.weight": torch.ones(3, 64)}, "w.safetensors")
    said = call("evaluate", "w.safetensors", "--data", toy, check=3).line
    assert said.endswith("not written by bsk; give one that bsk wrote, or weights of others by --model and --weights")
