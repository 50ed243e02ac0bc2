"""Passes through torch.compile: the same function on the network's own tensors, and when it pays off."""

import contextlib
import copy
import functools
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from bsk import compat
from bsk.models import compiled as module
from bsk.models.compiled import LONG, RATE, Compiled, compiles, frozen_form, operations
from bsk.models.modes import eval_mode, in_precision
from bsk.models.preact import preact_resnet50
from bsk.models.registry import build
from bsk.models.resnet import resnet18
from bsk.models.wide import wide_resnet
from bsk.training.awp import still_statistics

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile without a C++ compiler: it traces, and runs what it traced."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))


def network(name: str = "resnet18-4") -> nn.Module:
    """A network in train mode whose batch norms have statistics of their own."""
    model = build(name, classes=5, channels=3, size=16, mean=[0.5] * 3, std=[0.25] * 3, seed=0)
    random = torch.Generator().manual_seed(1)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0.0, 0.3, generator=random)
            layer.running_var.uniform_(0.5, 2.0, generator=random)
    return model.train()


def gradient(f: object, x: Tensor) -> tuple[Tensor, Tensor]:
    leaf = x.clone().requires_grad_()
    logits = f(leaf)
    return logits.detach(), torch.autograd.grad(logits.logsumexp(1).sum(), leaf)[0]


@pytest.mark.parametrize("name", ["resnet18-4", "resnet50-4", "wrn-10-1", "cnn-4", "preact-resnet18-4"])
def test_the_frozen_form_is_the_network_in_eval_mode_as_its_weights_change(name: str) -> None:
    model, x = network(name).double(), torch.rand(6, 3, 16, 16, dtype=torch.float64)
    form = frozen_form(model)
    assert all(layer.training for layer in model.modules())
    for _ in range(2):  # again after an update
        plain = copy.deepcopy(model).eval()
        for found, expected in zip(gradient(form, x), gradient(plain, x), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
        model(x).sum().backward()  # new statistics, too
        torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert not any(each.requires_grad for each in form.parameters())
    assert all(each.requires_grad for each in model.parameters())


def test_its_logits_stay_in_fp32_where_that_is_asked_for() -> None:
    x = torch.rand(4, 3, 16, 16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert frozen_form(network())(x).dtype == torch.bfloat16
        assert frozen_form(network(), fp32_logits=True)(x).dtype == torch.float32


@pytest.mark.slow
def test_both_forms_are_the_network_and_other_numbers_of_rows_are_not_compiled(quick: None) -> None:
    model, told = network(), []
    forms, x = Compiled(model, 6, CPU, told.append), torch.rand(6, 3, 16, 16)
    before = copy.deepcopy(model)
    expected = gradient(copy.deepcopy(model).eval(), x)
    with eval_mode(model):
        for found, wanted in zip(gradient(forms.frozen, x), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    weights = [*before.parameters()]
    wanted = torch.autograd.grad(before(x).logsumexp(1).sum(), weights)
    found = torch.autograd.grad(forms.trained(x).logsumexp(1).sum(), [*model.parameters()])
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    for (name, a), b in zip(model.named_buffers(), before.buffers(), strict=True):  # compiling left no trace in them
        torch.testing.assert_close(a, b, msg=name)
    spent = forms.spent()
    assert spent > 0 and forms.spent() == 0
    calls = forms.calls
    for rows in (5, 7):
        others, wanted = torch.rand(rows, 3, 16, 16), copy.deepcopy(model).eval()
        with eval_mode(model):
            for found, expected in zip(gradient(forms.frozen, others), gradient(wanted, others), strict=True):
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert forms.spent() == 0 and forms.calls == calls == 2
    assert len(told) == 1 and "--compile off" in told[0]


@pytest.mark.slow
def test_any_number_of_rows_is_compiled_for_attacks(quick: None) -> None:
    model = network()
    told, plain = [], copy.deepcopy(model.eval())
    forms = Compiled(model, None, CPU, told.append)
    for rows in (16, 24, 40):
        x = torch.rand(rows, 3, 16, 16)
        for found, expected in zip(gradient(forms.frozen, x), gradient(plain, x), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=5e-5)
    assert forms.calls == 3 and len(told) == 1


def test_the_memory_layout_of_images_causes_no_recompilation(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("cnn-4", classes=5, channels=1, size=8, mean=[0.5], std=[0.25], seed=0)
    forms, x = Compiled(model.eval(), 6, CPU, lambda _: None), torch.rand(6, 1, 8, 8)
    with torch.no_grad(), graphs(monkeypatch) as count:
        forms.frozen(x)
        forms.frozen(x.as_strided(x.shape, (64, 1, 8, 1)))  # the same images, as `channels_last` may have them
    assert count == [1]


@contextlib.contextmanager
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many graphs torch compiles within the block."""
    torch.compiler.reset()  # graphs that other tests compiled count towards torch's limit for one function
    count = [0]

    def backend(graph, inputs):
        count[0] += 1
        return graph.forward

    with monkeypatch.context() as patch:
        patch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
        yield count


@pytest.mark.slow
def test_what_is_compiled_anew_is_counted_as_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    """For each precision, kind of gradient and new statistics: every call that compiles a graph is counted as
    compiling.
    """
    model, x = network(), torch.rand(6, 3, 16, 16)
    with compat.compiling(), graphs(monkeypatch) as count:
        forms = Compiled(model, 6, CPU, lambda _: None)
        for _ in range(2):
            for precision in ("fp32", "bf16"):
                for f in (forms.frozen, forms.trained):
                    for grad, leaf in ((False, x), (True, x), (True, x.clone().requires_grad_())):
                        before = count[0]
                        with torch.set_grad_enabled(grad):
                            in_precision(f, precision)(leaf)
                        assert (forms.spent() > 0) == (count[0] > before)
            with still_statistics(model):
                before = count[0]
                forms.trained(x)
                assert (forms.spent() > 0) == (count[0] > before)
    assert count[0] >= 12


class Replacing(nn.Module):
    """Keeps a mean of its own in a buffer that is a new tensor each time."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 5)
        self.register_buffer("mean", torch.zeros(12))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(dim=0)
        return self.layer(x - self.mean)


def test_a_network_that_replaces_a_tensor_is_not_stale(quick: None) -> None:
    model, told = Replacing(), []
    forms, x = Compiled(model, 6, CPU, told.append), torch.rand(6, 3, 2, 2)
    for _ in range(3):
        forms.trained(x)
        with eval_mode(model):
            torch.testing.assert_close(forms.frozen(x), model(x))
    assert "replaces its tensors" in told[-1] and not forms.works


@pytest.mark.parametrize("form", ["trained", "frozen"])
def test_what_a_cuda_graph_returns_is_copied(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here a pass that writes its logits, and its gradient, into the same memory each time."""
    logits, back = torch.zeros(4, 3), torch.zeros(4, 3, 2, 2)

    class Static(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x: Tensor) -> Tensor:
            ctx.scale = x.sum()
            return logits.copy_(x.detach().sum(dim=(2, 3)))

        @staticmethod
        def backward(ctx, gradient: Tensor) -> Tensor:
            return back.copy_(gradient[:, :, None, None] * ctx.scale)

    monkeypatch.setattr(torch, "compile", lambda module, **_: Static.apply)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).eval()
    run = getattr(Compiled(model, 4, torch.device("cuda"), lambda _: None), form)
    kept = []
    for x in (torch.ones(4, 3, 2, 2), 2 * torch.ones(4, 3, 2, 2)):
        leaf = x.requires_grad_()
        found = run(leaf)
        kept.append((found.detach(), torch.autograd.grad(found.sum(), leaf)[0]))
    assert [float(each[0, 0]) for each, _ in kept] == [4.0, 8.0]
    assert [float(each[0, 0, 0, 0]) for _, each in kept] == [48.0, 96.0]


def broken(*arguments: object, **options: object) -> object:
    def run(x: Tensor) -> Tensor:
        raise RuntimeError("no C++ compiler\nand much more")

    return run


def test_if_compiling_fails_the_network_runs_eagerly_with_one_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", broken)
    model, told = network(), []
    forms, x = Compiled(model.eval(), 6, CPU, told.append), torch.rand(6, 3, 16, 16)
    for found, expected in zip(gradient(forms.frozen, x), gradient(copy.deepcopy(model), x), strict=True):
        assert torch.equal(found, expected)
    forms.trained(x)
    said = told[-1]
    assert len(told) == 2 and "no C++ compiler" in said and "\n" not in said and "--compile off" in said


def test_networks_that_cannot_be_compiled_run_eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(module: nn.Module, **options: object) -> object:
        raise RuntimeError("not supported here")

    monkeypatch.setattr(torch, "compile", refuses)
    model, told, x = network().eval(), [], torch.rand(6, 3, 16, 16)
    forms = Compiled(model, 6, CPU, told.append)
    assert torch.equal(forms.frozen(x), model(x)) and len(told) == 1 and "not supported here" in told[0]


def test_a_scripted_network_is_not_compiled() -> None:
    model, told, x = (
        torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(768, 5)).eval()),
        [],
        torch.rand(6, 3, 16, 16),
    )
    forms = Compiled(model, None, CPU, told.append)
    torch.testing.assert_close(forms.frozen(x), model(x))
    assert len(told) == 1 and not forms.works


class Uncopied(nn.Linear):
    def __deepcopy__(self, memo: object) -> object:
        raise TypeError("cannot be copied")


def test_a_network_that_cannot_be_copied_runs_eagerly() -> None:
    model, told = nn.Sequential(nn.Flatten(), Uncopied(3 * 16 * 16, 5)), []
    forms, x = Compiled(model, None, CPU, told.append), torch.rand(6, 3, 16, 16)
    torch.testing.assert_close(forms.frozen(x), model(x))
    assert len(told) == 1 and "cannot be copied" in told[0]


@pytest.mark.slow
def test_a_compiled_pass_goes_back_twice_within_the_block_and_the_switch_is_as_it_was(quick: None) -> None:
    from torch._functorch import config

    before = getattr(config, "donated_buffer", None)
    model, x = network(), torch.rand(6, 3, 16, 16, requires_grad=True)
    with compat.compiling():
        logits = Compiled(model, 6, CPU, lambda _: None).trained(x)
        first = torch.autograd.grad(logits.sum(), x, retain_graph=True)[0]
        torch.testing.assert_close(torch.autograd.grad(logits.sum(), x)[0], first)
    assert getattr(config, "donated_buffer", None) == before


def test_a_torch_without_the_switch_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch._functorch, "config")
    monkeypatch.setitem(sys.modules, "torch._functorch.config", None)
    monkeypatch.delattr(torch._dynamo, "config")
    monkeypatch.setitem(sys.modules, "torch._dynamo.config", None)
    with compat.compiling():
        pass


@pytest.mark.parametrize(
    ("choice", "device", "length", "expected"),
    [
        ("off", GPU, 9.0, False),
        ("on", CPU, 0.0, True),
        ("auto", GPU, 0.9, False),
        ("auto", GPU, 1.1, True),
        ("auto", torch.device("mps"), 9.0, False),
        ("auto", CPU, 0.9, False),
        ("auto", CPU, 1.1, True),
    ],
)
def test_auto_compiles_long_work(choice: str, device: torch.device, length: float, expected: bool, monkeypatch) -> None:
    """Of the convolution 3x3 from 2 to 4 channels on 8x8, 2 * 64 * 9 * 2 * 4 operations."""
    torch.set_num_threads(1)
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Flatten(), nn.Linear(256, 3))
    each = 2 * 64 * 9 * 2 * 4 + 2 * 256 * 3
    assert operations(model, (2, 8, 8), CPU) == each
    passes = length * LONG.get(device.type, 1.0) * RATE.get(device.type, 1.0) / each
    monkeypatch.setattr(module, "operations", lambda *_: each)  # there may be no such device
    assert compiles(choice, model, (2, 8, 8), passes, device) is expected
    if expected and choice == "auto" and device == CPU:
        torch.set_num_threads(2)
        assert not compiles(choice, model, (2, 8, 8), passes, device)  # two do it in half an hour
        torch.set_num_threads(1)


class Attending(nn.Module):
    """Self-attention over the 64 pixels of 16 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = x.mul_(2).flatten(2).transpose(1, 2)
        return self.attention(z, z, z, need_weights=False)[0].mean(1)


@pytest.mark.parametrize("frozen", [False, True])
def test_attention_is_counted(frozen: bool) -> None:
    """Four linear layers of 16 to 16 for 64 pixels, and two products of 64 x 64 x 16."""
    model = Attending().requires_grad_(not frozen)
    assert operations(model, (16, 8, 8), CPU) == 2 * (4 * 64 * 16 * 16 + 2 * 64 * 64 * 16)


@pytest.mark.parametrize("model", [resnet18(10, 3, 8), wide_resnet(10, 3, 10, 1), preact_resnet50(10, 3, 8)])
def test_small_work_is_recognised_without_a_pass(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound that is checked first is above the work of our networks."""
    weights = sum(each.numel() for each in model.parameters())
    assert operations(model, (3, 32, 32), CPU) < 2 * weights * 32 * 32
    monkeypatch.setattr(module, "operations", lambda *_: pytest.fail("looked"))
    assert not compiles("auto", model, (3, 32, 32), 1e3, CPU)
