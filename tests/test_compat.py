"""Private or version-dependent APIs that bsk uses: each is tested with the API and with its public fallback."""

import ast
import copy
import ctypes
import gc
import importlib.util
import io
import itertools
import pickle
import subprocess
import sys
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path

import pytest
import torch
import typer
from torch import Tensor, nn

import bsk.data.formats.pickles
from bsk import compat
from bsk.errors import InputError
from bsk.models.modes import folded
from bsk.models.products import steady_products
from bsk.models.resnet import resnet18

new_torch = pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="torch before 2.9")
PLACES = {  # of torch's precisions, wider ones first
    name: attrgetter(f"backends.{name}".removesuffix(".all"))(torch)
    for name in ("all", "cudnn", "cuda.matmul", "cudnn.conv", "cudnn.rnn", "mkldnn.matmul", "mkldnn.conv")
    if hasattr(torch.backends, "fp32_precision")
}


def test_nothing_else_in_bsk_names_what_is_private_to_others() -> None:
    folder = Path(compat.__file__).parent
    found = []
    for path in sorted({*folder.rglob("*.py")} - {Path(compat.__file__)}):
        for node in ast.walk(ast.parse(path.read_text())):
            whose = node.value.id if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) else ""
            name = node.attr if isinstance(node, ast.Attribute) else ""
            if name.startswith("_") and not name.startswith("__") and whose not in ("self", "cls"):
                found.append(f"{path.relative_to(folder)}:{node.lineno}: {ast.unparse(node)}")
    assert found == []


def test_objects_of_a_block_are_frozen_and_garbage_collection_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        before = gc.get_freeze_count()
        with compat.without_garbage_collection():
            assert not gc.isenabled()
        assert gc.isenabled() and gc.get_freeze_count() > before
    finally:
        gc.unfreeze()
    monkeypatch.delattr(gc, "freeze")
    gc.disable()
    with compat.without_garbage_collection():
        pass
    assert not gc.isenabled() and gc.get_freeze_count() == 0
    gc.enable()


def test_without_an_unpickler_in_python_no_pickle_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pickle.dumps({"labels": [1]}, protocol=2)
    assert bsk.data.formats.pickles.load(io.BytesIO(whole), len(whole), "f") == {"labels": [1]}
    monkeypatch.delattr(pickle, "_Unpickler")
    found = importlib.util.spec_from_file_location("pickles_without", bsk.data.formats.pickles.__file__)
    assert found and found.loader
    module = importlib.util.module_from_spec(found)
    monkeypatch.setitem(sys.modules, "pickles_without", module)
    found.loader.exec_module(module)
    with pytest.raises(InputError, match=r"f: not a pickle of CIFAR .*binary version"):
        module.load(io.BytesIO(whole), len(whole), "f")


@pytest.mark.parametrize("library", [object(), None])
def test_freed_memory_is_kept_where_there_is_mallopt(library: object, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[int, int]] = []

    class Glibc:
        def mallopt(self, parameter: int, value: int) -> None:
            called.append((parameter, value))

    monkeypatch.setattr(ctypes, "CDLL", lambda _: library or Glibc())
    compat.keep_freed_memory()
    assert called == ([] if library else [(-3, 1 << 30), (-1, (1 << 31) - 1)])
    monkeypatch.setattr(sys, "platform", "darwin")
    called.clear()
    compat.keep_freed_memory()
    assert called == []


def test_only_errors_of_a_command_line_have_a_usage_message() -> None:
    app = typer.Typer()
    app.command()(lambda number: None)
    for words in (["1", "2"], ["--nothing"], []):
        with pytest.raises(Exception) as error:
            app(words, standalone_mode=False)
        found = compat.usage_message(error.value)
        assert found and found[0] and found[1] == 2
    assert compat.usage_message(typer.BadParameter("no number")) == ("Invalid value: no number", 2)
    assert compat.usage_message(ValueError("no number")) is None


@pytest.mark.parametrize("wrapped", [False, True])
def test_sgd_is_torchs_own_to_the_bit_also_after_its_state_was_put_back(
    wrapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if wrapped:
        monkeypatch.setattr(compat, "unwrap", lambda method: method)
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    theirs = copy.deepcopy(ours)
    flags = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
    a, b = compat.sgd(ours.parameters(), **flags), torch.optim.SGD(theirs.parameters(), **flags)
    for update in range(6):
        x = torch.randn(8, 5)
        for model, optimiser in ((ours, a), (theirs, b)):
            optimiser.zero_grad(set_to_none=True)
            model(x).square().sum().backward()
            optimiser.step()
        if update == 2:
            state = a.state_dict()
            a = compat.sgd(ours.parameters(), lr=1.0)
            a.load_state_dict(state)
    assert all(
        torch.equal(p, q) and p.requires_grad for p, q in zip(ours.parameters(), theirs.parameters(), strict=True)
    )
    kept, expected = (each.state_dict() for each in (a, b))
    assert kept["param_groups"] == expected["param_groups"] and kept["state"].keys() == expected["state"].keys()
    for number, state in expected["state"].items():
        assert torch.equal(kept["state"][number]["momentum_buffer"], state["momentum_buffer"])


def test_a_training_does_not_load_torchs_compiler(toy: Path, tmp_path: Path) -> None:
    words = ["train", "--data", str(toy), "--model", "cnn-4", "--epochs", "1", "--ema", "0.9", "--awp", "0.01"]
    code = f"""
import sys
from bsk.cli.app import main
sys.argv = ["bsk", *{words!r}, "--out", {str(tmp_path / "m.safetensors")!r}, "--quiet"]
try:
    main()
finally:
    print("loaded" if "torch._dynamo" in sys.modules else "not loaded", file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip().splitlines()[-1] == "not loaded" and (tmp_path / "m.safetensors").exists(), done.stderr


@pytest.mark.parametrize(
    "register",
    [
        lambda layer: layer.register_forward_hook(lambda *_: None),
        lambda layer: layer.register_forward_pre_hook(lambda *_: None),
        lambda layer: layer.register_full_backward_hook(lambda *_: None),
        lambda layer: layer.register_full_backward_pre_hook(lambda *_: None),
    ],
)
def test_every_kind_of_hook_is_seen(register) -> None:
    layer = nn.Conv2d(1, 1, 1)
    assert not compat.has_hooks(layer)
    hook = register(layer)
    assert compat.has_hooks(layer) and compat.number_of_hooks(layer) == 1
    hook.remove()
    assert not compat.has_hooks(layer)


def test_where_hooks_are_kept_elsewhere_a_layer_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    model = resnet18(classes=3, channels=3, width=4).eval()
    kept = [each for each in model.modules() if isinstance(each, nn.BatchNorm2d)]
    with folded(model):
        assert not any(isinstance(each, nn.BatchNorm2d) for each in model.modules())
    monkeypatch.setattr(compat, "_HOOKS", ("_hooks_of_a_later_torch",))
    assert compat.number_of_hooks(model) is None and compat.has_hooks(model)
    with folded(model):
        assert [each for each in model.modules() if isinstance(each, nn.BatchNorm2d)] == kept


def test_a_write_into_a_tensor_changes_its_state() -> None:
    tensor = torch.zeros(2)
    before = compat.version_of(tensor)
    assert compat.version_of(tensor) == before
    tensor.add_(1)
    assert compat.version_of(tensor) != before


def test_a_tensor_that_counts_no_writes_is_never_in_the_state_of_before() -> None:
    with torch.inference_mode():
        layer, x = nn.Linear(5, 3).requires_grad_(False), torch.ones(4, 5)
        assert compat.version_of(layer.weight) != compat.version_of(layer.weight)
        with steady_products(layer):
            before = layer(x)
            layer.weight.mul_(2)
            layer.bias.mul_(2)
            assert torch.equal(layer(x), 2 * before)


@pytest.mark.parametrize(("inputs", "outputs"), [(48, 1000), (300, 64), (512, 10), (2048, 100)])
def test_the_public_way_to_onednn_gives_the_same_bits(
    inputs: int, outputs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = torch.Generator().manual_seed(0)
    weight, bias = (torch.randn(*size, generator=random) for size in ((outputs, inputs), (outputs,)))

    def products() -> Iterator[Tensor]:
        for rows, addend in itertools.product((2, 7, 16, 130), (bias, None)):
            yield compat.onednn_linear(x[:rows], weight, addend)
        yield compat.onednn_linear(x.reshape(2, 65, inputs), weight, bias)
        yield compat.onednn_linear(x.t().contiguous().t(), weight, bias)

    x = torch.randn(130, inputs, generator=random)
    expected = list(products())
    assert expected[8].shape == (2, 65, outputs)
    truth = x.double() @ weight.double().t() + bias.double()
    torch.testing.assert_close(expected[6].double(), truth, rtol=1e-5, atol=1e-4)
    monkeypatch.setattr(torch.ops, "mkldnn", object())
    assert all(torch.equal(found, each) for found, each in zip(products(), expected, strict=True))


CPUS = {
    "AVX2": (["avx2"], "Intel Xeon", False),
    "Cooper Lake": (["avx512_bf16"], "Intel Xeon", True),
    "Emerald Rapids": (["avx512_bf16", "avx512_fp16", "amx_bf16"], "Intel Xeon", True),
    "Emerald Rapids without AMX": (["avx512_bf16", "avx512_fp16"], "Intel Xeon", False),
    "the same, unnamed": (["avx512_bf16", "avx512_fp16"], None, False),
    "Zen 5": (["avx512_bf16"], "AMD EPYC", True),
    "AMD with AVX512-FP16": (["avx512_bf16", "avx512_fp16"], "AMD EPYC", True),
}


@pytest.mark.parametrize("cpu", CPUS)
def test_bf16_is_fast_with_amx_or_avx512_bf16_at_full_rate(cpu: str, monkeypatch: pytest.MonkeyPatch) -> None:
    has, name, expected = CPUS[cpu]
    known = {each: each in has for each in ("avx2", "avx512_bf16", "avx512_fp16", "amx_bf16")}
    known |= {} if name is None else {"cpu_name": name}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    assert compat.cpu_is_fast_in_bf16() is expected


def test_a_torch_without_cpu_capabilities_counts_as_without_fast_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert compat.cpu_is_fast_in_bf16() is False


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make torch report a GPU, and restore its precisions afterwards."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    yield
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True
    for name, place in PLACES.items():
        place.fp32_precision = "tf32" if name in ("cudnn.conv", "cudnn.rnn") else "none"


def precisions(chosen: dict[str, str]) -> list[list[str]]:
    """Read every precision as it is, and again with the wider ones changed, which shows which ones are set on their
    own.
    """
    found = [[place.fp32_precision for place in PLACES.values()]]
    for name, other in itertools.product(("all", "cudnn"), ("ieee", "tf32")):
        PLACES[name].fp32_precision = other
        found.append([place.fp32_precision for place in PLACES.values()])
        PLACES[name].fp32_precision = chosen.get(name, "none")
    return found


@new_torch
@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"cuda.matmul": "tf32"},
        {"all": "tf32"},
        {"all": "ieee", "cuda.matmul": "tf32"},
        {"all": "ieee", "cudnn": "tf32", "cudnn.rnn": "ieee"},
        {"cudnn": "tf32", "mkldnn.matmul": "bf16"},
        {"mkldnn.matmul": "tf32", "mkldnn.conv": "ieee", "cudnn.conv": "none"},
    ],
)
def test_within_the_block_nothing_rounds_and_afterwards_all_is_as_it_was(chosen: dict[str, str], gpu: None) -> None:
    for name, value in chosen.items():
        PLACES[name].fp32_precision = value
    before = precisions(chosen)
    assert "tf32" in before[0]
    with pytest.raises(RuntimeError, match="stop"), compat.without_tf32(), compat.without_tf32():
        assert not {"tf32", "bf16"} & {place.fp32_precision for place in PLACES.values()}
        raise RuntimeError("stop")
    assert precisions(chosen) == before


@new_torch
@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_old_flags_that_were_set_can_be_read_again(precision: str, gpu: None) -> None:
    torch.set_float32_matmul_precision(precision)
    before = precisions({})
    with compat.without_tf32():
        assert torch.get_float32_matmul_precision() == "highest" and not torch.backends.cuda.matmul.allow_tf32
        assert not {"tf32", "bf16"} & {place.fp32_precision for place in PLACES.values()}
    assert torch.get_float32_matmul_precision() == precision and precisions({}) == before
    assert torch.backends.cuda.matmul.allow_tf32 is (precision != "highest") and torch.backends.cudnn.allow_tf32


@new_torch
def test_without_a_gpu_a_model_may_read_the_old_flags_within_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    before = torch.backends.cudnn.allow_tf32
    with compat.without_tf32(), torch.backends.cudnn.flags(enabled=False):
        assert torch.backends.cudnn.allow_tf32 is before


@pytest.mark.parametrize("precision", ["highest", "medium"])
@pytest.mark.parametrize("cudnn", [True, False])
def test_before_torch_2_9_the_old_flags_are_used(
    precision: str, cudnn: bool, gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.backends.cudnn.allow_tf32 = cudnn
    torch.set_float32_matmul_precision(precision)
    with monkeypatch.context() as older:
        older.delattr(type(torch.backends), "fp32_precision", raising=False)
        with compat.without_tf32():
            assert torch.get_float32_matmul_precision() == "highest" and not torch.backends.cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == precision and torch.backends.cudnn.allow_tf32 is cudnn
