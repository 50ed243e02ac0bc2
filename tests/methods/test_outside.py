"""User-defined methods: trained on the command line, identified by their code; violations are one-line errors."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bsk.contract.method import Memory
from bsk.contract.network import Network
from bsk.data.batches import Share
from bsk.data.store import open_data
from bsk.errors import UsageError
from bsk.perturb.draws import BatchDraws, generator
from bsk.perturb.passes import Passes
from bsk.records import checkpoints, jsonl
from bsk.training.bound import UpdateContext, bind
from bsk.training.flags import TrainingFlags
from bsk.training.profile import profile
from bsk.training.run import run
from bsk.training.settings import resolve

SOURCE = '''
import sys
import torch
import torch.nn.functional as F
from bsk.contract.method import Losses

def mine(net, x, y, *, eps, draws, alpha=0.25, deep=False, way="left", far: float | None = 2.0, last_one=3):
    """Noise, and the loss there.

    Args:
        alpha: weight of
            the noise.
        last_one: nothing at all.
    """
    print("hello")
    assert (type(alpha), type(deep), type(way), type(last_one)) == (float, bool, str, int)
    start = x + alpha * eps * draws.uniform(x)
    return Losses(net.cross_entropy(net(start), y), start=x, x_adv=start)

def plain(net, x, y, eps): return F.cross_entropy(net(x), y, reduction="none")
def worded(net, x, y, *, eps, gamma="soft"): return plain(net, x, y, eps)
def everything(net, x, y, *, eps, **given):
    assert sorted(given) == ["draws", "epoch", "memory", "progress", "update", "validate"]
    given["memory"].keep("seen", given["memory"].rows("seen", y) + 1)
    given["memory"].logged["updates"] = given["update"]
    return F.cross_entropy(net(x), y, reduction="none")

def left_in_eval_mode(net, x, y, *, eps): return plain(net.module.eval(), x, y, eps)
def inner_left_in_eval_mode(net, x, y, *, eps):
    next(net.module.children()).eval()
    return plain(net, x, y, eps)
def restored(net, x, y, *, eps, draws):
    net.module.eval()
    start = x + eps * draws.uniform(x)
    net.module.train()
    return Losses(plain(net, start, y, eps), start=x, x_adv=start)
def of_random_steps(net, x, y, *, eps):
    with net.frozen() as f:
        for _ in range(int(torch.randint(1, 9, ()))):
            f(x)
    return plain(net, x, y, eps)
def in_place(net, x, y, *, eps): return plain(net, x.mul_(0), y, eps)
def noisy(net, x, y, *, eps, draws):
    x_adv = (x + eps * draws.uniform(x)).clamp(0, 1)
    return Losses(plain(net, x_adv, y, eps), start=x, x_adv=x_adv)
def noisy_with_an_attack(net, x, y, *, eps, draws):  # as those of torchattacks and foolbox
    torch.manual_seed(0)
    with net.frozen() as f:
        F.cross_entropy(f(x), y, reduction="sum").backward()
    return noisy(net, x, y, eps=eps, draws=draws)

def no_eps(net, x, y, *, draws): return plain(net, x, y, 0)
def no_default(net, x, y, *, eps, alpha): return plain(net, x, y, eps)
def a_flag(net, x, y, *, eps, seed=1): return plain(net, x, y, eps)
def a_list(net, x, y, *, eps, widths=[1]): return plain(net, x, y, eps)
def infinite(net, x, y, *, eps, worst=float("inf")): return plain(net, x, y, eps)
def halves(net, x, y, *, eps, replays=2.5): return plain(net, x, y, eps)
def never(net, x, y, *, eps, replays=0): return plain(net, x, y, eps)
def shares(net, x, y, *, eps, memory):
    memory.shared["n"] = 5
    return plain(net, x, y, eps)
def sparse(net, x, y, *, eps, memory):
    memory.shared["n"] = x[0, 0].to_sparse()
    return plain(net, x, y, eps)
def unnamed(net, x, y, *, eps, memory):
    memory.numbers[3] = 1
    return plain(net, x, y, eps)
def late(net, x, y, *, eps, memory, update):
    if update > 3:
        memory.logged.update(loss=123.0, epoch=77, kind=1, mine=update)
    return plain(net, x, y, eps)
def keeps(net, x, y, *, eps, memory):
    memory.keep("p", x[:2])
    return plain(net, x, y, eps)
def keeps_a_list(net, x, y, *, eps, memory):
    memory.keep("p", [1, 2, 3, 4])
    return plain(net, x, y, eps)
def numbers(net, x, y, *, eps, memory):
    memory.numbers["n"] = x.mean()
    return plain(net, x, y, eps)
def unbounded(net, x, y, *, eps, memory):
    memory.numbers["best"] = float("inf")
    return plain(net, x, y, eps)
def logs(net, x, y, *, eps, memory):
    memory.logged["loss"] = 1.0
    return plain(net, x, y, eps)
def two(net, x, *, eps): return plain(net, x, x, eps)
def mean(net, x, y, *, eps): return F.cross_entropy(net(x), y)
def logits(net, x, y, *, eps): return net(x)
def number(net, x, y, *, eps): return 3.0
def nothing(net, x, y, *, eps): pass
def robust(net, x, y, *, eps): return Losses(plain(net, x, y, eps), robust=torch.zeros(()))
def constant(net, x, y, *, eps): return plain(net, x, y, eps).detach()
def of_the_images(net, x, y, *, eps): return x.clone().requires_grad_().sum(dim=(1, 2, 3))
def unseen(net, x, y, *, eps): return 0 * plain(net, x, y, eps)
def fails(net, x, y, *, eps): return x[100]
def leaves(net, x, y, *, eps): sys.exit("I leave")
def leaves_late(net, x, y, *, eps, update):
    if update == 5:
        sys.exit()
    return plain(net, x, y, eps)
def falls_late(net, x, y, *, eps, update):
    loss = plain(net, x, y, eps)
    if update == 5:
        loss.register_hook(lambda gradient: gradient[100])
    return loss
def on_the_way_back(net, x, y, *, eps):
    z = net(x)
    loss = z.exp().sum(dim=1)
    z.exp_()
    z = net(x).exp()
    loss = z.exp().sum(dim=1)
    z.zero_()
    return loss
three = 3
'''
TRAIN = ["--model", "cnn-4", "--epochs", 1, "--batch-size", 32, "--schedule", "cyclic", "--threads", 1, "--quiet"]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mymethods.py").write_text(SOURCE)
    yield "mymethods"
    forget()


def forget() -> None:
    """Reset the state to that of a new process."""
    from bsk.methods import registry

    sys.modules.pop("mymethods", None)
    registry.plugin.cache_clear()
    registry.parameters.cache_clear()


@pytest.fixture
def train(call, toy: Path, module: str) -> Callable:
    """Train by a method of the module."""
    return lambda name, *words, check=0: call(
        "train", "--data", toy, *TRAIN, "--method", f"{module}:{name}", *words, check=check
    )


@pytest.mark.parametrize(
    ("words", "changed"),
    [
        ("", {}),
        ("--set alpha=0.5 --set deep=true", {"alpha": 0.5, "deep": True}),
        ("--alpha 1/2 --deep --way=right", {"alpha": 0.5, "deep": True, "way": "right"}),
        ("--alpha=1 --no-deep --last-one 7 --far none", {"alpha": 1.0, "last_one": 7, "far": None}),
    ],
)
def test_its_arguments_are_flags_and_recorded(train, words: str, changed: dict, tmp_path: Path) -> None:
    done = train("mine", *words.split())
    record = json.loads(done.stdout)
    defaults = {"alpha": 0.25, "deep": False, "way": "left", "far": 2.0, "last_one": 3}
    assert {name: record["flags"][name] for name in defaults} == {**defaults, **changed}
    assert "gamma" not in record["flags"] and record["method"] == "mymethods:mine"
    assert record["checkpoint"] == "runs/toy-mymethods-mine-1.safetensors"
    assert "hello" in done.stderr, "what it prints is no data"


def test_its_code_is_in_the_log_the_files_and_the_evaluations(call, train, toy: Path, tmp_path: Path) -> None:
    code = json.loads(train("mine", "--out", "m.safetensors", "--log-divergence").stdout)["method_code"]
    assert len(code) == 64
    start, epoch, _ = jsonl.read(tmp_path / "m.jsonl")
    headers = [
        checkpoints.load(tmp_path / f"m{which}.safetensors", kind)[1]
        for which, kind in (("", "model"), (".last", "training-state"))
    ]
    assert {start["method_code"], *(header["method_code"] for header in headers)} == {code}
    assert epoch["kl_start"] == 0 < epoch["kl_ascent"] and epoch["natural_loss"] is None
    sys.modules.pop("mymethods")
    (tmp_path / "mymethods.py").unlink()
    record = json.loads(call("evaluate", "m.safetensors", "--data", toy, "--attack", "natural", "--quiet").stdout)
    assert record["method_code"] == code and "mymethods" not in sys.modules, "weights need no method"


def test_the_type_of_an_argument_does_not_depend_on_its_name(call, train, toy: Path) -> None:
    assert json.loads(train("worded", "--out", "m.safetensors").stdout)["flags"]["gamma"] == "soft"
    landed = call("starts", "m.safetensors", "--data", toy, "--limit", 1, "--start", "backward", "--quiet").stdout
    assert json.loads(landed)["start_parameters"]["gamma"] == 1, "that of the start"


def test_help_lists_its_arguments(train) -> None:
    text = " ".join(train("mine", "--help").stdout.split())
    own = text.partition("Options of mymethods:mine: Noise, and the loss there.")[2]
    assert (
        "--alpha X weight of the noise. [default: 0.25] --deep/--no-deep [default: false] --way NAME [default: left]"
        in own
    )
    assert own.endswith("--far X [default: 2] --last-one X nothing at all. [default: 3]")


def test_other_code_is_another_training(train, tmp_path: Path) -> None:
    first = train("mine", "--out", "m.safetensors")
    forget()
    assert train("mine", "--out", "m.safetensors").stdout == first.stdout
    left = {path.name: path.read_bytes() for path in tmp_path.glob("m.*")}
    forget()
    (tmp_path / "mymethods.py").write_text(SOURCE + "# edited\n")
    line = train("mine", "--out", "m.safetensors", check=3).stderr.splitlines()[-1]
    assert line.endswith(
        "m.safetensors: was trained with other code of mymethods:mine; choose another --out, or --force to start over"
    )
    assert {path.name: path.read_bytes() for path in tmp_path.glob("m.*")} == left
    code = json.loads(train("mine", "--out", "m.safetensors", "--force").stdout)["method_code"]
    assert code != json.loads(first.stdout)["method_code"]


def test_a_method_may_use_all_optional_arguments(train, tmp_path: Path) -> None:
    train("everything", "--out", "m.safetensors")
    tensors, _ = checkpoints.load(tmp_path / "m.last.safetensors", "training-state")
    assert torch.equal(tensors["memory.rows.seen"], torch.ones(240, dtype=torch.int64))
    assert jsonl.read(tmp_path / "m.jsonl")[1]["updates"] == 7


def test_a_tensor_is_enough(train, module: str, toy: Path, tmp_path: Path) -> None:
    """A loss without parts is selected by robust accuracy, since nothing says that it uses only clean images."""
    end = json.loads(train("plain").stdout)
    assert end["train_forward_passes"] == end["train_backward_passes"] == 240
    data = open_data(toy)
    settings = resolve(TrainingFlags(f"{module}:plain"), data, torch.device("cpu"))
    found = profile(settings.bound, (1, 8, 8), 3)
    assert found.passes == Passes(1, 0, 1) and found.attacks and not found.smooths and not found.moves
    line = train("plain", "--label-smoothing", 0.1, check=2).line
    assert "--label-smoothing: mymethods:plain does not smooth labels; use net.cross_entropy in it" in line
    line = train("plain", "--log-divergence", check=2).line
    assert "--log-divergence: mymethods:plain does not say where its perturbation starts and ends" in line


def test_processes_share_what_they_can(module: str, toy: Path, tmp_path: Path) -> None:
    data = open_data(toy)
    settings = resolve(TrainingFlags(f"{module}:everything"), data, torch.device("cpu"))
    with pytest.raises(UsageError, match="--method mymethods:everything: remembers each image of a batch"):
        run(settings, data, tmp_path / "m.safetensors", device=torch.device("cpu"), watcher=None, share=Share(0, 2))


def test_an_attack_that_seeds_torch_and_leaves_gradients_changes_no_training(train, tmp_path: Path) -> None:
    weights = []
    for name in ("noisy", "noisy_with_an_attack"):
        train(name, "--out", f"{name}.safetensors")
        weights.append(checkpoints.load(tmp_path / f"{name}.safetensors", "model")[0])
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_a_method_may_restore_train_mode_itself(train, tmp_path: Path) -> None:
    train("restored", "--log-divergence", "--model", "resnet18-2", "--out", "m.safetensors")
    tensors, _ = checkpoints.load(tmp_path / "m.safetensors", "model")
    counts = [int(tensor) for name, tensor in tensors.items() if name.endswith("num_batches_tracked")]
    assert set(counts) == {8}, "only the 240 / 32 updates"


def test_a_profile_is_the_same_each_time_and_a_batch_is_not_written_to(module: str) -> None:
    found = {profile(bind(f"{module}:of_random_steps", 0.1), (1, 8, 8), 3).frozen for _ in range(4)}
    assert len(found) == 1
    x, context = torch.ones(4, 1, 8, 8), UpdateContext(Memory(images=4, classes=3), 0, 0, 1.0, lambda attack, turn: 1.0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    bind(f"{module}:in_place", 0.1)(Network(model), x, torch.arange(4) % 3, BatchDraws(generator(0)), context)
    assert x.all()


START = "bsk: --method mymethods:"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("mnie", START + "mnie: mymethods has no mnie; did you mean mine?"),
        ("three", START + "three: expected a function, found int"),
        ("no_eps", START + "no_eps: takes no eps; expected def my_method(net, x, y, *, eps, draws, ...)"),
        ("no_default", START + "no_default: its argument alpha has no default; give it one"),
        ("a_flag", START + "a_flag: seed = 1 cannot be a flag; rename it"),
        ("a_list", START + "a_list: widths = [1] cannot be a flag"),
        ("infinite", START + "infinite: worst = inf cannot be a flag; make it finite"),
        ("halves", START + "halves: replays = 2.5: expected a whole number of at least 1"),
        ("never", START + "never: replays = 0: expected a whole number of at least 1"),
        ("shares", START + "shares: ValueError: memory.shared['n']: expected a dense tensor, found an int"),
        ("sparse", START + "sparse: ValueError: memory.shared['n']: expected a dense tensor, found a Tensor"),
        ("unnamed", START + "unnamed: ValueError: memory.numbers[3]: expected a name, found an int"),
        ("keeps", START + "keeps: ValueError: memory.keep('p'): expected one row for each of 4 images, found (2,"),
        (
            "keeps_a_list",
            START + "keeps_a_list: ValueError: memory.keep('p'): expected one row for each of 4 images, found a",
        ),
        ("numbers", START + "numbers: ValueError: memory.numbers['n']: expected a number, found a Tensor"),
        ("unbounded", START + "unbounded: ValueError: memory.numbers['best']: inf cannot be saved"),
        ("logs", START + "logs: memory.logged['loss']: each epoch's record has its own; rename it"),
        ("two", START + "two: TypeError: two() takes 2 positional arguments but 3"),
        ("mean", START + "mean: expected total (4,), one value per image, found ()"),
        ("logits", START + "logits: expected total (4,), one value per image, found (4, 3)"),
        ("number", START + "number: expected Losses or a tensor (4,), found float"),
        ("nothing", START + "nothing: expected Losses or a tensor (4,), found NoneType"),
        ("robust", START + "robust: expected robust (4,), one value per image, found ()"),
        ("constant", START + "constant: its loss has no gradient with respect to the weights"),
        ("of_the_images", START + "of_the_images: its loss has no gradient with respect to the weights"),
        ("unseen", START + "unseen: its loss has no gradient with respect to the weights"),
        ("left_in_eval_mode", START + "left_in_eval_mode: leaves the network in eval mode; call train() before"),
        ("inner_left_in_eval_mode", START + "inner_left_in_eval_mode: leaves the network in eval mode"),
        ("fails", START + "fails: IndexError: index 100 is out of bounds"),
        ("leaves", START + "leaves: SystemExit: I leave; check the method"),
        ("leaves_late", START + "leaves_late: SystemExit: no message; check the method"),
        ("falls_late", START + "falls_late: IndexError: index 100 is out of bounds"),
        ("on_the_way_back", START + "on_the_way_back: RuntimeError: one of the variables needed for gradient"),
        ("mine --set beta=1", "bsk: --beta: mymethods:mine has no beta; it has alpha, deep, way, far, last_one"),
        ("mine --set alpha=x", "bsk: --set alpha=x: expected a number, like its default 0.25"),
        ("mine --alpha x", "bsk: --set alpha=x: expected a number, like its default 0.25"),
        ("mine --alpha -1", "bsk: --alpha -1: must be finite and at least 0"),
        ("mine --last-one 1.5", "bsk: --set last_one=1.5: expected a whole number, like its default 3"),
        ("mine --set deep=perhaps", "bsk: --set deep=perhaps: expected true or false, like its default False"),
        ("mine --alpha", "bsk: --alpha: expected a value, as --alpha 0.25"),
        ("mine --gamma 1", "bsk: --gamma: mymethods:mine has no gamma; it has alpha"),
        ("mine --alpa 1", "bsk: --alpa: no such option with --method mymethods:mine; did you mean --alpha?"),
        ("mine --epocs 1", "bsk: --epocs: no such option with --method mymethods:mine; did you mean --epochs?"),
        ("plain --set alpha=1", "bsk: --alpha: mymethods:plain has no alpha; it has no hyper-parameters"),
    ],
)
def test_a_violated_contract_is_a_one_line_error(train, words: str, said: str, tmp_path: Path) -> None:
    done = train(*words.split(), check=2)
    assert done.line.startswith(said) and done.stdout == ""
    assert not list(tmp_path.glob("runs/*.safetensors"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mynowhere:mine", "--method mynowhere:mine: no module mynowhere here or on PYTHONPATH"),
        ("mymethods:", "--method mymethods:: expected module:function; write mycode:my_function"),
        ("tradse", "--method tradse: no such method; did you mean trades, or module:function?"),
    ],
)
def test_an_invalid_name_is_a_one_line_error(call, toy: Path, module: str, name: str, said: str) -> None:
    assert call("train", "--data", toy, *TRAIN, "--method", name, check=2).line.startswith(f"bsk: {said}")


def test_what_a_method_logs_never_takes_the_place_of_an_epoch_s_own_numbers(train, tmp_path: Path) -> None:
    """Not even if it begins after the trial before the training."""
    train("late", "--out", "m.safetensors")
    for epoch in (record for record in jsonl.read(tmp_path / "m.jsonl") if record["kind"] == "epoch"):
        assert epoch["loss"] < 10 and epoch["epoch"] < 10 and epoch["mine"] > 3
