"""Catastrophic overfitting: detected cheaply, reported once and acted upon, without changing the training otherwise."""

from pathlib import Path

import pytest
import torch
from toys import EPS, Silent, settings, stop_after, stopped, trained

from bsk.comparison.evidence import collect
from bsk.data.batches import Share
from bsk.data.store import DataFile, Split
from bsk.errors import CollapsedError, StoppedError
from bsk.methods.registry import METHODS
from bsk.records import checkpoints
from bsk.records import jsonl as records
from bsk.records.located import Located
from bsk.training import loop, monitor
from bsk.training.initial import new_state
from bsk.training.monitor import IMAGES, every, look
from bsk.training.monitor import MonitorResult as Found
from bsk.training.profile import profile


@pytest.mark.parametrize("method", METHODS)
def test_checks_cost_a_hundredth_of_the_updates(method: str) -> None:
    """By hand for Fast AT: 32 images of 28 forwards' worth, an update of 128 of 5: 896 / (0.01 x 640) = 140."""
    s = settings(method, batch_size=128)
    found = profile(s.bound, (1, 8, 8), 3)
    looks, passes = every(s, found), found.passes
    if method == "natural":
        assert looks == 0
        return
    worth = 128 * (passes.forward + passes.to_input + 2 * passes.full) * (8 if method == "free-at" else 1)
    assert 0.5 * 0.01 < 32 * 28 / (looks * worth) <= 0.01
    assert method != "fast-at" or looks == 140


def test_a_network_robust_to_one_step_but_not_to_ten_has_collapsed() -> None:
    assert Found(0.85, 0.12, 0.1, 128).collapsed and Found(0.3, 0.09, 0.4, 128).collapsed
    assert Found(0.16, 0.01, 0.2, 128).collapsed and not Found(0.14, 0.0, 0.2, 128).collapsed
    assert Found(0.08, 0.0, 0.2, 128, 100).collapsed and not Found(0.04, 0.0, 0.2, 128, 100).collapsed
    assert not Found(0.7, 0.2, 0.2, 128, 2).collapsed, "chance is a half"
    assert not Found(0.55, 0.36, 0.4, 128).collapsed and not Found(0.05, 0.0, 0.4, 128).collapsed
    assert not Found(0.41, 0.12, 0.66, 128).collapsed, "young, at a large radius: the loss is straight"


@pytest.mark.parametrize(
    ("fgsm", "pgd", "cosine", "best", "fallen"),  # looks at Fast AT on CIFAR-10, 16/255, 40 epochs, seeds 1 and 3
    [
        (0.28125, 0.125, 0.57, 0.21875, False),
        (0.09375, 0.0, 0.05, 0.21875, True),  # it stands against FGSM no longer: natural accuracy was 10 %
        (0.0, 0.0, 0.06, 0.21875, True),
        (0.09375, 0.0625, 0.12, 0.21875, True),
        (0.15625, 0.15625, 0.95, 0.25, False),
        (0.09375, 0.0625, 0.95, 0.25, False),
    ],
)
def test_a_network_that_has_lost_all_robustness_has_collapsed_too(
    fgsm: float, pgd: float, cosine: float, best: float, fallen: bool
) -> None:
    seen = Found(fgsm, pgd, cosine, 32, 10, best)
    assert seen.fallen == fallen == seen.collapsed


def test_a_network_that_never_was_robust_has_not_collapsed_and_is_no_rollback_target() -> None:
    seen = Found(0.0, 0.0, 0.17, 32, 10, 0.0625)
    assert seen.fallen and not seen.collapsed
    assert not Found(0.1, 0.1, 0.95, 32).fallen, "young: the loss is straight"


def test_a_check_knows_the_best_before_it_also_after_resuming(
    data: DataFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {4: 0.2, 8: 0.6, 12: 0.3, 16: 0.4, 20: 0.0, 24: 0.0}
    told = {}

    def seen(state, *_):  # type: ignore[no-untyped-def]
        told[state.step] = state.collapses.best
        return Found(0.0, found[state.step], 0.1, 128, 10, state.collapses.best)

    monkeypatch.setattr(monitor, "every", lambda *_: 4)
    monkeypatch.setattr(monitor, "look", seen)
    with pytest.raises(StoppedError):
        trained(tmp_path / "m.safetensors", data, settings("fast-at"), stopping=stop_after(13))
    trained(tmp_path / "m.safetensors", data, settings("fast-at"))
    assert told == {4: 0.0, 8: 0.2, 12: 0.6, 16: 0.6, 20: 0.6, 24: 0.6}
    assert [(record["step"], record["fgsm"], record["best"]) for record in alarms(tmp_path / "m.jsonl")] == [
        (20, 0, 0.6)
    ]


@pytest.mark.parametrize("sure", [1, 300])
def test_a_check_measures_accuracies_and_cosine_by_their_definitions(sure: int, data: DataFile) -> None:
    torch.manual_seed(0)
    s = settings("fast-at")
    state = new_state(s, data, 1, 8, torch.device("cpu"))
    state.model.eval()
    last = [each for each in state.model.modules() if isinstance(each, torch.nn.Linear)][-1]
    last.weight.data *= sure
    last.bias.data *= sure
    val = data.split("val")
    if sure > 1:
        val = Split(val.images, state.model(val.images / 255).argmax(1), val.index)
    x, y = val.images[:IMAGES].float() / 255, val.labels[:IMAGES]

    def gradient(at: torch.Tensor) -> torch.Tensor:
        leaf = at.clone().requires_grad_()
        torch.nn.functional.cross_entropy(state.model(leaf), y, reduction="sum").backward()
        return leaf.grad

    stood = state.model((x + EPS * gradient(x).sign()).clamp(0, 1)).argmax(1) == y
    stood &= state.model(x).argmax(1) == y  # an attack begins at the image
    seen = look(state, s, val, Share())
    assert seen.n == IMAGES and seen.fgsm == pytest.approx(float(stood.float().mean()))
    assert seen.pgd <= seen.fgsm and -1 <= seen.cosine <= 1
    noise = monitor.example_draws(1, "monitor 0", val.index[:IMAGES].tolist()).uniform(x)
    at_x, near = (gradient(each).flatten(1).double() for each in (x, x + EPS * noise))
    by_hand = (at_x * near).sum(1) / (at_x.norm(dim=1) * near.norm(dim=1))
    assert seen.cosine == pytest.approx(float(by_hand.nan_to_num().mean()), abs=1e-5)
    assert bool((at_x.norm(dim=1) < 1e-8).any()) is (sure > 1)
    first = val.labels == y[0]
    some = Split(val.images[first], val.labels[first], val.index[first])
    assert seen.classes == look(state, s, some, Share()).classes == 3, "those of the data, not of these images"


def test_an_alarm_needs_a_second_check_on_more_images(data: DataFile, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def seen(state, settings, val, share, images):  # type: ignore[no-untyped-def]
        asked.append(images)
        return Found(0.9, 0.1 if images == IMAGES else 0.5, 0.1, images)

    monkeypatch.setattr(monitor, "_look", seen)
    state = new_state(settings("fast-at"), data, 1, 8, torch.device("cpu"))
    assert not look(state, settings("fast-at"), data.split("val"), Share()).collapsed and asked == [32, 128]
    state.collapses.now = True  # it is known already: no need to be sure
    assert look(state, settings("fast-at"), data.split("val"), Share()).collapsed and asked == [32, 128, 32]


def test_checks_do_not_change_the_training(data: DataFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained(tmp_path / "plain.safetensors", data, settings("bs"))
    monkeypatch.setattr(monitor, "every", lambda *_: 3)
    trained(tmp_path / "m.safetensors", data, settings("bs"))
    plain, _ = checkpoints.load(tmp_path / "plain.last.safetensors", "training-state")
    looked, _ = checkpoints.load(tmp_path / "m.last.safetensors", "training-state")
    assert all(torch.equal(plain[name], looked[name]) for name in plain)
    epochs = [record for record in records.read(tmp_path / "m.jsonl") if record["kind"] == "epoch"]
    assert [record["monitor_step"] for record in epochs] == [6, 15, 24], "and after the last update"
    assert all(0 <= record["monitor_pgd"] <= record["monitor_fgsm"] <= 1 for record in epochs)


def collapsing(monkeypatch: pytest.MonkeyPatch, at: tuple[int, ...]) -> None:
    """Check every 4 updates, and simulate a collapse after the given updates."""
    monkeypatch.setattr(monitor, "every", lambda *_: 4)
    monkeypatch.setattr(monitor, "look", lambda state, *_: Found(0.9, 0.1 if state.step in at else 0.6, 0.1, 128))


def alarms(path: Path) -> list[dict]:
    return [record for record in records.read(path) if record["kind"] == "alarm"]


def test_each_collapse_gives_one_alarm_which_compare_ignores(
    data: DataFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collapsing(monkeypatch, (8, 12, 20))
    trained(tmp_path / "m.safetensors", data, settings("fast-at"))
    found = alarms(tmp_path / "m.jsonl")
    assert [(record["step"], record["epoch"], record["back"]) for record in found] == [(8, 2, False), (20, 3, False)]
    log = records.read(tmp_path / "m.jsonl")
    evidence = collect(Located("m.jsonl", line, record) for line, record in enumerate(log, 1))
    assert evidence.ignored == 0 and evidence.trainings[0].finished


@pytest.mark.slow
def test_on_the_digits_fast_at_is_seen_to_collapse_and_bs_is_not(digits: DataFile, tmp_path: Path) -> None:
    found = {}
    for method in ("fast-at", "bs"):
        s = settings(method, model="cnn", eps=0.4, epochs=30, batch_size=100, augment="none")
        trained(tmp_path / f"{method}.safetensors", digits, s)
        found[method] = alarms(tmp_path / f"{method}.jsonl")
    (alarm,) = found["fast-at"]
    assert alarm["fgsm"] > 0.35 and alarm["pgd"] < 0.12 and alarm["cosine"] < 0.45 and alarm["n"] == 128
    assert found["bs"] == []


def test_stop_keeps_the_best_epoch(data: DataFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collapsing(monkeypatch, (12,))
    with pytest.raises(CollapsedError, match=r"after 12 updates \(FGSM 90%, PGD-10 10%\); the best epoch is kept"):
        trained(tmp_path / "m.safetensors", data, settings("fast-at", on_collapse="stop"))
    assert CollapsedError.exit_code == 4
    _, header = checkpoints.load(tmp_path / "m.safetensors", "model")
    assert header["epoch"] == 1 and len(alarms(tmp_path / "m.jsonl")) == 1
    with pytest.raises(CollapsedError):
        trained(tmp_path / "m.safetensors", data, settings("fast-at", on_collapse="stop"))
    assert len(alarms(tmp_path / "m.jsonl")) == 1, "the epoch is run again, and its log too"


@pytest.mark.parametrize("then", ["warn", "rollback"])
@pytest.mark.parametrize(("method", "at"), [("fast-at", 12), ("fast-at", 16), ("fast-at-plus", 20), ("fast-at", 24)])
def test_a_stopped_training_resumes_as_if_it_had_not_stopped(
    then: str, method: str, at: int, data: DataFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collapsing(monkeypatch, (at,))
    with pytest.raises(CollapsedError, match="resume from here with --on-collapse rollback or warn"):
        trained(tmp_path / "m.safetensors", data, settings(method, on_collapse="stop"))
    trained(tmp_path / "m.safetensors", data, settings(method, on_collapse=then))
    trained(tmp_path / "whole.safetensors", data, settings(method, on_collapse=then))
    m, whole = (checkpoints.load(tmp_path / f"{name}.last.safetensors", "training-state")[0] for name in ("m", "whole"))
    assert all(torch.equal(m[name], whole[name]) for name in whole)
    assert alarms(tmp_path / "m.jsonl") == alarms(tmp_path / "whole.jsonl") != []


def test_rollback_restores_the_last_good_weights_and_continues_with_pgd(
    data: DataFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collapsing(monkeypatch, (12,))
    kept, restore_learned = {}, loop.restore_learned
    monkeypatch.setattr(
        loop, "restore_learned", lambda state, tensors: (kept.update(tensors), restore_learned(state, tensors))
    )
    s = settings("fast-at", on_collapse="rollback", ema=0.9)
    end = trained(tmp_path / "m.safetensors", data, s)
    (alarm,) = alarms(tmp_path / "m.jsonl")
    assert alarm["back"] and alarm["step"] == 12
    monkeypatch.setattr(loop, "restore_learned", restore_learned)
    with pytest.raises(StoppedError):  # the weights after 8 updates, when the monitor looked before
        trained(tmp_path / "eight.safetensors", data, s, stopping=stop_after(8))
    eight, _ = checkpoints.load(tmp_path / "eight.last.safetensors", "training-state")
    assert kept and all(torch.equal(eight[name], kept[name]) for name in kept)
    epochs = [record for record in records.read(tmp_path / "m.jsonl") if record["kind"] == "epoch"]
    assert [record.get("rescued_updates") for record in epochs] == [None, 4, 4]
    assert epochs[1]["forward_passes"] == 240 * 2 + (3 * 32 + 16) * (11 - 2), "four of its eight updates are PGD's"
    assert end["train_forward_passes"] == sum(record["forward_passes"] for record in epochs)


@pytest.mark.parametrize(("first", "said"), [("warn", True), ("rollback", False)])
def test_rollback_after_a_collapse_that_was_only_warned_of_has_nothing_to_restore_and_says_so(
    first: str, said: bool, data: DataFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "every", lambda *_: 4)
    found = lambda state, *_: Found(0.9, 0.1, 0.1, 128) if state.step >= 12 else Found(0.6, 0.6, 0.9, 128)  # noqa: E731
    monkeypatch.setattr(monitor, "look", found)
    with pytest.raises(StoppedError):
        trained(tmp_path / "m.safetensors", data, settings("fast-at", on_collapse=first), stopping=stop_after(14))
    watcher = Silent()
    trained(tmp_path / "m.safetensors", data, settings("fast-at", on_collapse="rollback"), watcher=watcher)
    assert any("without keeping weights to roll back to" in each for each in watcher.notices) is said


def test_stop_in_the_first_epoch_claims_no_best(
    data: DataFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collapsing(monkeypatch, (4,))
    with pytest.raises(CollapsedError, match="; no epoch was completed; try --method n-fgsm"):
        trained(tmp_path / "m.safetensors", data, settings("fast-at", on_collapse="stop"))


def test_the_last_weights_are_checked_too(data: DataFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collapsing(monkeypatch, (24,))
    monkeypatch.setattr(monitor, "every", lambda *_: 100)
    with pytest.raises(StoppedError):  # while the last epoch is validated, after the look
        trained(tmp_path / "m.safetensors", data, settings("fast-at"), stopping=stop_after(24 + 3))
    trained(tmp_path / "m.safetensors", data, settings("fast-at"))
    assert [(record["step"], record["epoch"]) for record in alarms(tmp_path / "m.jsonl")] == [(24, 3)]


def test_rollback_does_not_restore_collapsed_weights(
    data: DataFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = {
        4: Found(0.1, 0.1, 0.9, 128),
        8: Found(0.1, 0.0, 0.1, 128),
        12: Found(0.9, 0.1, 0.1, 128),
    }
    monkeypatch.setattr(monitor, "every", lambda *_: 4)
    monkeypatch.setattr(monitor, "look", lambda state, *_: looks.get(state.step, Found(0.6, 0.6, 0.9, 128)))
    kept, restore_learned = {}, loop.restore_learned
    monkeypatch.setattr(
        loop, "restore_learned", lambda state, tensors: (kept.update(tensors), restore_learned(state, tensors))
    )
    s = settings("fast-at", on_collapse="rollback")
    trained(tmp_path / "m.safetensors", data, s)
    monkeypatch.setattr(loop, "restore_learned", restore_learned)
    with pytest.raises(StoppedError):
        trained(tmp_path / "four.safetensors", data, s, stopping=stop_after(4))
    four, _ = checkpoints.load(tmp_path / "four.last.safetensors", "training-state")
    assert kept and all(torch.equal(four[name], kept[name]) for name in kept)


def test_a_rolled_back_training_resumes_bit_for_bit(
    data: DataFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stops before the collapse, which rolls it back, and twice after it."""
    collapsing(monkeypatch, (12,))
    s = settings("fast-at", on_collapse="rollback")
    trained(tmp_path / "whole.safetensors", data, s)
    stopped(tmp_path / "cut.safetensors", data, s, 9, 4, 2)
    trained(tmp_path / "cut.safetensors", data, s)
    whole, cut = (
        checkpoints.load(tmp_path / f"{name}.last.safetensors", "training-state")[0] for name in ("whole", "cut")
    )
    assert whole.keys() == cut.keys() and all(torch.equal(whole[name], cut[name]) for name in whole)
    assert alarms(tmp_path / "whole.jsonl") == alarms(tmp_path / "cut.jsonl") != []
