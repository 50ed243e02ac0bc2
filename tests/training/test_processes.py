"""Two gloo processes against one: the same images, the same perturbations, the same loss and weights."""

import contextlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file
from torch import Tensor, nn
from toys import settings, stop_after, trained

import bsk
from bsk.data.batches import Loader, Share, to_unit
from bsk.data.processes import agree_on, leave_group, sum_gradients, sum_over_processes
from bsk.data.store import open_data
from bsk.errors import InputError, StoppedError, UsageError
from bsk.records import jsonl as records
from bsk.training import loop, run
from bsk.training.initial import new_state
from bsk.training.schedules import Rates
from bsk.training.state import State
from bsk.training.step import update
from bsk.training.validation import BATCH, batches

CPU = torch.device("cpu")


def three_updates(data: Path, share: Share, method: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean losses and all weights after three updates with batch norm in eval mode.

    In fp64: in fp32 another number of rows changes the last bit, and with it the sign of a gradient near zero.
    """
    torch.set_num_threads(1)
    opened = open_data(data)
    s = settings(method, epochs=1, batch_size=33)
    state = new_state(s, opened, 1, 8, CPU)
    state.model.eval().double()
    train = opened.split("train")
    loader = Loader(train.images, train.labels, batch_size=33, augment="crop-flip", seed=1, device=CPU, share=share)
    for i, batch in enumerate(loader.epoch(0)):
        if i < 3:
            update(state, s, replace(batch, x=batch.x.double()), share, Rates(0.1, 0.9), total=20)
    means = sum_over_processes(state.sums, share) / (3 * 33)
    return means, torch.cat([p.detach().reshape(-1) for p in state.model.parameters()])


def one_of_two(rank: int, meeting: str, data: Path, methods: list[str], out: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    found = {method: three_updates(data, Share(rank, 2), method) for method in methods}
    torch.save({**found, "partial": partial_gradients(rank)}, f"{out}.{rank}")
    leave_group()


def partial_gradients(rank: int) -> list[Tensor | None]:
    """Return the summed gradients of weights that one process has, both, and none, as under stochastic depth."""
    layers = nn.ParameterList(nn.Parameter(torch.ones(2)) for _ in range(4))
    (10.0**rank * (layers[rank] + layers[2]).sum()).backward()
    sum_gradients(layers, Share(rank, 2))
    return [each.grad for each in layers]


LATER = ["zero-grad", "multi-grad", "ssat", "elle", "llr", "dynamic-at", "n-fgsm", "mart", "gradalign"]


METHODS = ["bs", "trades", "fast-at", "liet", "gat", *LATER]


@pytest.mark.slow(first=True)
def test_two_processes_give_the_result_of_one(toy: Path, tmp_path: Path, subtests: pytest.Subtests) -> None:
    mp.spawn(one_of_two, (str(tmp_path / "meet"), toy, METHODS, str(tmp_path / "out")), nprocs=2)
    both = [torch.load(tmp_path / f"out.{rank}", weights_only=True) for rank in (0, 1)]
    for found in both:
        *some, none = found["partial"]
        assert [each.tolist() for each in some] == [[1.0, 1.0], [10.0, 10.0], [11.0, 11.0]] and none is None
    for method in METHODS:
        with subtests.test(method=method):
            same_as_one([found[method] for found in both], *three_updates(toy, Share(), method))


def same_as_one(found: list[tuple[Tensor, Tensor]], means: Tensor, weights: Tensor) -> None:
    assert torch.equal(found[0][1], found[1][1]), "the processes keep the same weights"
    torch.testing.assert_close(found[0][0], means, rtol=0, atol=1e-9)
    torch.testing.assert_close(found[0][1], weights, rtol=0, atol=1e-9)


def standing_still(*arguments: Any) -> State:
    """Return a new state whose batch norm stays in eval mode, so that parts of a batch have the same statistics."""
    state = new_state(*arguments)
    state.model.eval()
    object.__setattr__(state.model, "train", lambda mode=True: state.model)
    return state


def train_one_of_two(rank: int, meeting: str, data: Path, folder: str, updates: int) -> None:
    """Train with a clock by which only the first process finds a save due after every update, and go on from there."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    loop.SAVE_SECONDS = 600.0 if rank else -1.0
    run.new_state = standing_still
    for most in (updates, 999):  # the second time it goes on, or is done
        with contextlib.suppress(StoppedError):
            train_slowly(Path(folder) / "two.safetensors", data, share=Share(rank, 2), stopping=stop_after(most))
    leave_group()


def train_slowly(out: Path, data: Path, **more: Any) -> None:
    """Train with such a small step that signs of nearly zero gradients do not matter."""
    trained(out, open_data(data), settings("natural", epochs=1, lr=1e-3, batch_size=33), **more)


@pytest.mark.slow
@pytest.mark.parametrize("updates", [999, 5])
def test_processes_log_the_losses_of_all_and_save_together_though_their_clocks_differ(
    updates: int, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mp.spawn(train_one_of_two, (str(tmp_path / "meet"), toy, str(tmp_path), updates), nprocs=2)
    monkeypatch.setattr(run, "new_state", standing_still)
    train_slowly(tmp_path / "one.safetensors", toy)
    one, two = (records.read(tmp_path / f"{name}.jsonl") for name in ("one", "two"))
    assert [record["kind"] for record in two] == ["start", "epoch", "end"]
    assert two[1]["loss"] == two[1]["natural_loss"] == pytest.approx(one[1]["loss"], rel=1e-6)


def train_with_batch_norm(rank: int, meeting: str, data: Path, folder: str) -> None:
    """Train `whole` at once, and `parts` with a stop after five updates."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    started = settings("bs", epochs=2, batch_size=33, ema=0.9)
    for name, most in (("whole", 999), ("parts", 5), ("parts", 999)):
        out, stopping = Path(folder) / f"{name}.safetensors", stop_after(most)
        with contextlib.suppress(StoppedError):
            trained(out, open_data(data), started, share=Share(rank, 2), stopping=stopping)
    leave_group()


@pytest.mark.slow
def test_two_processes_resume_bit_for_bit_since_they_have_the_statistics_of_the_first(
    toy: Path, tmp_path: Path
) -> None:
    mp.spawn(train_with_batch_norm, (str(tmp_path / "meet"), toy, str(tmp_path)), nprocs=2)
    for end in (".safetensors", ".last.safetensors", ".ema-last.safetensors"):
        one, two = (load_file(tmp_path / f"{name}{end}") for name in ("whole", "parts"))
        assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one), end
    log = records.read(tmp_path / "whole.jsonl")
    assert log[0]["processes"] == 2
    measured = validate_alone(tmp_path / "whole.last.safetensors", toy)
    assert log[2]["val_natural"] == measured  # the saved network is the one that all processes validated
    with pytest.raises(InputError, match=r"was trained with processes 2, now 1; choose another --out"):
        trained(tmp_path / "whole.safetensors", open_data(toy), settings("bs", epochs=2, batch_size=33, ema=0.9))


def validate_alone(last: Path, data: Path) -> float:
    val = open_data(data).split("val")
    model = bsk.load(last)
    return float((model(to_unit(val.images)).argmax(dim=1) == val.labels).double().mean())


def disagree(rank: int, meeting: str, out: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    try:
        agree_on(3, Share(rank, 2))
        agree_on(7 * rank, Share(rank, 2))
    except InputError as error:
        Path(f"{out}.{rank}").write_text(str(error))
    leave_group()


@pytest.mark.slow
def test_processes_that_see_different_files_say_so_instead_of_waiting(tmp_path: Path) -> None:
    mp.spawn(disagree, (str(tmp_path / "meet"), str(tmp_path / "said")), nprocs=2)
    for rank in (0, 1):
        assert "go on from different updates, 0 to 7; give all" in (tmp_path / f"said.{rank}").read_text()


@pytest.mark.parametrize(
    ("method", "what"),
    [
        ("nuat", "takes a batch as a whole"),
        ("free-at", "remembers each image of a batch"),
        ("fgsm-pgi", "remembers each image of a batch"),
        ("rs-aaer", "takes a batch as a whole"),
        ("uap", "remembers a batch as a whole"),
    ],
)
def test_methods_that_need_a_whole_batch_refuse_several_processes(method, what, toy: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=f"--method {method}: {what}, so processes cannot share it; run it without torchrun"
    ):
        trained(tmp_path / "m.safetensors", open_data(toy), settings(method), share=Share(0, 2))
    assert not list(tmp_path.iterdir())


def test_shares_cover_all_rows_once() -> None:
    rows = torch.arange(11)
    for world in (1, 2, 3, 12):
        parts = [Share(rank, world).of(rows) for rank in range(world)]
        assert torch.equal(torch.cat(parts), rows)
        assert [Share(rank, world).first(11) for rank in range(world)] == [
            sum(len(p) for p in parts[:rank]) for rank in range(world)
        ]


@pytest.mark.parametrize(("n", "world"), [(501, 2), (500, 2), (1000, 1), (2, 3), (751, 3)])
def test_all_processes_validate_in_as_many_batches_since_they_meet_at_each(n: int, world: int) -> None:
    parts = [batches(n, Share(rank, world)) for rank in range(world)]
    assert len({len(part) for part in parts}) == 1
    assert all(len(rows) <= BATCH for part in parts for rows in part)
    assert sorted(torch.cat([rows for part in parts for rows in part]).tolist()) == list(range(n))


def test_a_last_batch_with_too_few_images_for_all_is_left_out() -> None:
    images, labels = torch.zeros(10, 1, 4, 4, dtype=torch.uint8), torch.zeros(10, dtype=torch.int64)
    for world, count in ((1, 4), (2, 3)):
        loader = Loader(images, labels, batch_size=3, augment="none", seed=1, device=CPU, share=Share(0, world))
        assert len(loader) == count == sum(1 for _ in loader.epoch(0))
    with pytest.raises(UsageError, match="--batch-size 3: must be at least the number of processes, 4"):
        Loader(images, labels, batch_size=3, augment="none", seed=1, device=CPU, share=Share(0, 4))


@pytest.mark.slow
def test_torchrun_trains_and_one_process_writes(toy: Path, tmp_path: Path) -> None:
    words = ["--model", "cnn-4", "--epochs", "2", "--batch-size", "32", "--threads", "1", "--out", "m.safetensors"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    done = subprocess.run(
        [*torchrun, "-m", "bsk", "train", "--data", str(toy), *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    log = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    assert [r["kind"] for r in log] == ["start", "epoch", "epoch", "end"]
    assert record["train_forward_passes"] == 2 * 4 * 240 and record["train_backward_passes"] == 2 * 4 * 240
