"""Details of attacks: random starts, restarts, removal of fooled rows, counts, names and flags."""

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bsk.attacks.flags import AttackFlags
from bsk.attacks.outcome import NotFiniteError, Outcome, check_unit, first_rows, ranked_targets, spread
from bsk.attacks.pgd import pgd
from bsk.attacks.rays import rays
from bsk.attacks.registry import ASSUMED_PASSES, NATURAL, attack_named, attacks_named
from bsk.errors import InputError, UsageError
from bsk.perturb.ball import length
from bsk.perturb.draws import example_draws

EPS = 0.1


class Seen(nn.Module):
    """A model whose two logits depend on the mean of an image, wrong from `wall` on; it records its inputs."""

    def __init__(self, wall: float = 9.0) -> None:
        super().__init__()
        self.wall = wall
        self.asked: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.asked.append(x.detach().clone())
        bright = x.flatten(1).mean(1) - self.wall
        return torch.stack([-bright, bright], dim=1)


def images(n: int = 3) -> Tensor:
    return 0.3 + 0.4 * torch.rand(n, 2, 3, 3, generator=torch.Generator().manual_seed(1))


def labels(n: int = 3) -> Tensor:
    return torch.zeros(n, dtype=torch.int64)


def draws(n: int = 3):
    return example_draws(0, "pgd", range(n))


class Shifted(nn.Module):
    """A network of 10 classes, with a constant added to all of its logits."""

    def __init__(self, constant: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(18, 32), nn.ReLU(), nn.Linear(32, 10))
        self.constant = constant

    def forward(self, x: Tensor) -> Tensor:
        return 9 * self.layers(x) + self.constant


@pytest.mark.parametrize("name", ["pgd-20", "cw-20", "apgd-ce", "apgd-dlr", "apgd-t", "fab-t", "square"])
def test_a_constant_added_to_all_logits_changes_no_verdict(name: str) -> None:
    """Nor do negative logits: some implementations leave the label out by a logit of 0 instead of -infinity."""
    x = images(60)
    y = Shifted(0.0)(x).argmax(1)
    stage = attack_named(name, 0.06, AttackFlags(classes=10, queries=200)).stages[-1]
    found = [
        stage(Shifted(constant).eval(), x, y, example_draws(0, stage.name, range(60)), 0.06).fooled
        for constant in (0.0, -100.0, 100.0)
    ]
    assert Shifted(-100.0)(x).max() < 0
    assert 6 < int(found[0].sum()) < 58
    assert max(int((other ^ found[0]).sum()) for other in found[1:]) <= 1, "logits near 100 are rounded to 1e-5"


# --- PGD --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["zero", "uniform"])
def test_restarts_after_the_first_start_at_random_points(start: str) -> None:
    model, x, source = Seen(), images(), draws()
    pgd(model, x, labels(), draws(), eps=EPS, step=0.03, steps=2, restarts=3, start=start)
    begun = model.asked[::3]
    expected = [x] if start == "zero" else []
    expected += [(x + EPS * source.uniform(x)).clamp(0, 1) for _ in range(3 - len(expected))]
    assert len(model.asked) == 9
    for found, one in zip(begun, expected, strict=True):
        torch.testing.assert_close(found, one)


def test_a_robust_image_takes_all_forward_passes_and_one_backward_pass_per_step() -> None:
    found = pgd(Seen(), images(), labels(), draws(), eps=EPS, step=0.03, steps=4, restarts=2)
    assert found.forward.tolist() == [10] * 3 and found.backward.tolist() == [8] * 3 and not found.fooled.any()


def test_a_single_image_is_attacked_to_the_end() -> None:
    model = Seen()
    found = pgd(model, images(1), labels(1), draws(1), eps=EPS, step=0.03, steps=4)
    assert found.forward.tolist() == [5] and len(model.asked) == 5
    torch.testing.assert_close(found.x_adv, images(1) + EPS)


def test_fooled_images_leave_and_only_the_others_restart() -> None:
    """The images' means are 0.4, 0.5 and 0.6, and 0.58 is wrong: one at once, one after three steps, one never."""
    model = Seen(0.58)
    x = torch.stack([torch.full((1, 2, 2), mean) for mean in (0.4, 0.5, 0.6)])
    found = pgd(model, x, labels(), draws(), eps=EPS, step=0.03, steps=4, restarts=2)
    assert [len(each) for each in model.asked] == [3, 2, 2, 2, 1, 1, 1, 1, 1, 1]
    assert found.fooled.tolist() == [False, True, True] and found.forward.tolist() == [10, 4, 1]
    assert found.backward.tolist() == [8, 4, 1], "the step of an image that is fooled there was made already"
    fell = pgd(Seen(0.3), x, labels(), draws(), eps=EPS, step=0.03, steps=4, restarts=2)
    assert fell.fooled.all() and fell.forward.tolist() == [1] * 3


# --- names and flags --------------------------------------------------------------------------------------------------


def test_stages_of_the_gradient_attacks() -> None:
    natural, stage = attack_named("pgd-7x3", EPS, AttackFlags(step=0.02, start="uniform")).stages
    assert natural is NATURAL and (stage.name, stage.run, stage.passes) == ("pgd-7x3", pgd, 45)
    assert stage.parameters == {
        "loss": "cross_entropy",
        "step": 0.02,
        "steps": 7,
        "restarts": 3,
        "start": "uniform",
        "last_iterate": False,
    }
    assert (stage.rows, stage.fills, stage.calls, stage.batchwise) == (1, True, 4, False)
    (stage,) = attack_named("fgsm", EPS, AttackFlags(last_iterate=True)).stages
    assert stage.parameters == {
        "loss": "cross_entropy",
        "step": EPS,
        "steps": 1,
        "restarts": 1,
        "start": "zero",
        "last_iterate": True,
    }
    assert (stage.name, stage.passes) == ("fgsm", 3)


def test_stages_of_the_ensembles() -> None:
    apgd = {"norm": "linf", "steps": 100}
    few = [
        (each.name, each.parameters, each.rows, each.passes, each.fills)
        for each in attack_named("autoattack", EPS, AttackFlags(classes=5)).stages[1:]
    ]
    assert few == [
        ("apgd-ce", {**apgd, "loss": "cross_entropy", "targets": 0, "eot": 1}, 1, 200, False),
        ("apgd-t", {**apgd, "loss": "dlr", "targets": 4, "eot": 1}, 4, 800, False),
        ("fab-t", {**apgd, "targets": 4}, 4, 1200, False),
        ("square", {"norm": "linf", "queries": 5000}, 1, 5000, True),
    ]
    for name in ("apgd-t", "fab-t"):
        assert [attack_named(name, EPS, AttackFlags(classes=n)).stages[1].rows for n in (2, 10, 100)] == [1, 9, 9]
    rand = attack_named("autoattack-rand", EPS).stages[1:]
    assert [(each.name, each.parameters["eot"], each.passes) for each in rand] == [
        ("apgd-ce", 20, 4000),
        ("apgd-dlr", 20, 4000),
    ]
    assert attack_named("screen", EPS).stages[1:] == attack_named("autoattack", EPS).stages[1:3]
    (_, square), (_, ray) = (attack_named(name, EPS, AttackFlags(queries=70)).stages for name in ("square", "rays"))
    assert square.parameters["queries"] == square.passes == 70
    assert (ray.parameters, ray.passes) == ({"queries": 70, "stop_at_eps": False}, 70)
    assert (
        attack_named("rays", EPS).stages[1].parameters["queries"]
        == attack_named("rays", EPS).stages[1].passes
        == 10_000
    )


def test_losses_for_few_classes_and_their_notices() -> None:
    for classes, loss in ((3, "margin"), (4, "dlr")):
        found = attack_named("autoattack", EPS, AttackFlags(classes=classes))
        assert found.stages[2].parameters["loss"] == loss
        assert found.notices == (
            () if classes == 4 else ("autoattack: 3 classes are too few for the DLR loss; the margin takes its place",)
        )
    assert attack_named("apgd-ce", EPS, AttackFlags(classes=3)).notices == ()
    assert "the margin takes its place" in attack_named("autoattack-rand", EPS, AttackFlags(classes=3)).notices[0]
    assert attack_named("screen", EPS).notices == (
        "screen is an upper bound, not AutoAttack's number; autoattack gives that",
    )


def test_parameters_of_one_stage_and_of_several() -> None:
    assert attack_named("natural", EPS).parameters == {} and attack_named("natural", EPS).stages == (NATURAL,)
    assert attack_named("apgd-ce", EPS).parameters["loss"] == "cross_entropy"
    assert list(attack_named("screen", EPS).parameters) == ["apgd-ce", "apgd-t"]


@pytest.mark.parametrize(
    ("flags", "names", "said"),
    [
        ({"start": "zer"}, ["pgd-5"], "--start zer: no such start; did you mean zero?"),
        ({"norm": "l3"}, ["apgd-ce"], "--norm l3: no such norm; did you mean l2?"),
        ({"engine": "bks"}, ["apgd-ce"], "--engine bks: no such engine; did you mean bsk?"),
        ({"step": -1.0}, ["pgd-5"], "--step -1: must be finite and above 0"),
        ({"step": 2.0}, ["pgd-5"], "--step 2: must be at most 1"),
        ({"search": "bf61"}, ["pgd-5"], "--search bf61: no such search; did you mean bf16?"),
        ({"queries": 5}, ["pgd-5"], "--queries: no attack here takes it; it is for square, rays"),
        ({"stop_at_eps": True}, ["square"], "--stop-at-eps: no attack here takes it; it is for rays"),
        ({"step": 0.1}, ["apgd-ce", "square"], "--step: no attack here takes it; it is for fgsm, pgd, cw"),
        ({"last_iterate": True}, ["rays"], "--last-iterate: no attack here takes it; it is for fgsm, pgd, cw"),
        ({"norm": "l2"}, ["pgd-5"], "--norm l2: pgd-5 is Linf-only; use apgd-ce, apgd-t, fab-t, square or autoattack"),
        ({"norm": "l2"}, ["rays"], "--norm l2: rays is Linf-only; use apgd-ce, apgd-t, fab-t, square or autoattack"),
        (
            {"classes": 1},
            ["pgd-5"],
            "--attack pgd-5: data with one class cannot be attacked; prepare data with at least two",
        ),
        ({"engine": "reference"}, ["pgd-5"], "--engine reference: it has no pgd-5; it has apgd-ce, apgd-dlr, apgd-t, "),
        (
            {"engine": "reference", "classes": 3},
            ["apgd-t"],
            "--engine reference: its DLR loss needs 4 classes, the model has 3",
        ),
    ],
)
def test_an_invalid_flag_is_a_one_line_error(flags: dict, names: list[str], said: str) -> None:
    with pytest.raises(UsageError) as refused:
        attacks_named(names, EPS, AttackFlags(**flags))
    assert str(refused.value).startswith(said)


def test_a_flag_is_accepted_if_one_of_the_attacks_takes_it() -> None:
    flags = AttackFlags(step=0.1, last_iterate=True, queries=5, stop_at_eps=True)
    found = attacks_named(["natural", "apgd-ce", "pgd-5", "rays"], EPS, flags)
    assert [each.name for each in found] == ["natural", "apgd-ce", "pgd-5", "rays"]
    assert attack_named("pgd-5", EPS, AttackFlags(classes=2)).stages[1].parameters["steps"] == 5


# --- the reference ----------------------------------------------------------------------------------------------------


def test_the_reference_runs_as_a_stage() -> None:
    pytest.importorskip("pyautoattack")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(18, 5)).requires_grad_(False)
    x = images(12)
    y = model(x).argmax(1)
    y[0] = (y[0] + 1) % 5
    traced, state = sys.gettrace(), torch.get_rng_state()
    for name, eps, flags in (("apgd-ce", EPS, {}), ("fab-t", 0.4, {"norm": "l2"})):
        natural, stage = attack_named(name, eps, AttackFlags(engine="reference", classes=5, **flags)).stages
        assert (natural, stage.name, stage.passes, stage.batchwise) == (NATURAL, name, ASSUMED_PASSES, True)
        package = stage.parameters["package"]
        assert stage.parameters == {"norm": "linf", "attack": name, "package": package, "targets": 4, **flags}
        assert package.startswith("pyautoattack ")
        found, again = (stage(model, x, y, draws(12), eps) for _ in range(2))
        assert torch.equal(found.fooled, model(found.x_adv).argmax(1) != y) and torch.equal(found.x_adv, again.x_adv)
        assert found.fooled.sum() > 1 and (found.x_adv != x).any()
        assert length(found.x_adv - x, flags.get("norm", "linf")).max() <= eps + 1e-5
        assert int(found.forward.sum()) > 100 and int(found.forward.max() - found.forward.min()) <= 1
        assert int(found.backward.sum()) > 10
    assert sys.gettrace() is traced and torch.equal(torch.get_rng_state(), state)


def test_few_classes_leave_the_reference_attacks_without_the_ratio() -> None:
    pytest.importorskip("pyautoattack")
    for name in ("apgd-ce", "fab-t", "square"):
        assert attack_named(name, EPS, AttackFlags(engine="reference", classes=3)).stages[1].parameters["targets"] == 2
    for name in ("apgd-t", "autoattack"):
        assert attack_named(name, EPS, AttackFlags(engine="reference", classes=4)).stages[1].parameters["targets"] == 3


# --- outcomes ---------------------------------------------------------------------------------------------------------


def test_passes_of_a_batch_are_spread_evenly() -> None:
    assert spread(11, labels(4)).tolist() == [3, 3, 3, 2]


def test_targets_are_the_most_likely_other_classes() -> None:
    logits = torch.tensor([[1.0, 5.0, 3.0, 3.0], [9.0, 1.0, 2.0, 8.0]])
    assert ranked_targets(logits, torch.tensor([1, 0]), 2).tolist() == [[2, 3], [3, 2]]
    assert ranked_targets(logits, torch.tensor([1, 0]), 9).tolist() == [[2, 3, 0], [3, 2, 1]]


def test_rows_of_an_example_stand_together() -> None:
    owner = torch.tensor([0, 0, 2, 3, 3, 3])
    assert first_rows(owner).tolist() == [True, False, True, True, False, False]
    tally = Outcome.begin(torch.zeros(4, 1, 1, 1))
    wrong = torch.tensor([False, True, False, True, False, True])
    x_adv = torch.arange(6.0).view(6, 1, 1, 1)
    assert tally.leave(owner, x_adv, wrong).tolist() == [False, False, True, False, False, False]
    assert tally.fooled.tolist() == [True, False, False, True] and tally.x_adv.flatten().tolist() == [
        1.0,
        0.0,
        0.0,
        3.0,
    ]
    tally.count(owner)
    tally.count(owner, 2, 5)
    assert tally.forward.tolist() == [6, 0, 3, 9] and tally.backward.tolist() == [10, 0, 5, 15]
    assert tally.leave(owner, x_adv, torch.zeros(6, dtype=torch.bool)) is None


def test_images_must_be_in_0_to_1_up_to_rounding() -> None:
    x = torch.zeros(1, 1, 2, 2)
    for value in (0.0, 1.0009, -0.0009):
        x[0, 0, 0, 0] = value
        check_unit(x)
    for value in (1.002, -0.002, torch.nan):
        x[0, 0, 0, 0] = value
        with pytest.raises(InputError, match=r"images: values from .*, expected \[0, 1\]; divide them by 255"):
            Outcome.begin(x)
    check_unit(x[:0])


def test_rays_stands_at_just_eps() -> None:
    """The distance is accurate to 1/1000: an eps equal to it fools the model, a smaller one does not."""
    x, y = torch.full((1, 1, 2, 2), 0.5), labels(1)
    found = rays(Seen(0.6), x, y, draws(1), eps=EPS, queries=200)
    distance = float(found.distance[0])
    assert distance == pytest.approx(0.1, abs=2e-3) and found.forward.dtype == torch.int64
    for eps, fooled in ((distance, True), (distance - 1e-6, False)):
        assert rays(Seen(0.6), x, y, draws(1), eps=eps, queries=200).fooled.tolist() == [fooled]


# --- from outside -----------------------------------------------------------------------------------------------------

SOURCE = """
import torch
def shifts(model, x, y, *, eps, draws, by=1.0): return (x + by * eps).double()
def white(model, x, y, *, eps, draws): return torch.ones_like(x)
def beyond(model, x, y, *, eps, draws): return torch.ones_like(x) + 0.5
def asks(model, x, y, *, eps, draws):
    model(x * float("nan"))
    return x
"""


def outside(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, eps: float = EPS, model=None, **settings):
    (folder / "thirds.py").write_text(SOURCE)
    monkeypatch.chdir(folder)
    (attack,) = attacks_named([f"thirds:{name}"], eps, AttackFlags(settings=settings))
    stage = attack.stages[1]
    assert (stage.name, stage.passes, stage.batchwise) == (f"thirds:{name}", ASSUMED_PASSES, True)
    return stage(model or Seen(), torch.full((2, 1, 2, 2), 0.5), labels(2), draws(2), eps)


def test_images_from_outside_are_of_the_model_s_type_and_may_touch_every_edge(tmp_path, monkeypatch) -> None:
    found = outside(tmp_path, monkeypatch, "shifts", by="0.5")
    assert found.x_adv.dtype == torch.float32
    torch.testing.assert_close(found.x_adv, torch.full((2, 1, 2, 2), 0.5 + EPS / 2))
    assert outside(tmp_path, monkeypatch, "shifts", by=1 + 5e-6).x_adv is not None, "rounding"
    assert (outside(tmp_path, monkeypatch, "white", eps=0.5).x_adv == 1).all()
    with pytest.raises(InputError, match=r"^--attack thirds:shifts: expected images within eps 0.1 of x"):
        outside(tmp_path, monkeypatch, "shifts", by=1.0001)
    with pytest.raises(
        InputError, match=r"^--attack thirds:beyond: expected images in \[0, 1\], found values from 1.5"
    ):
        outside(tmp_path, monkeypatch, "beyond", eps=1.0)


def test_a_model_that_is_not_finite_is_no_fault_of_the_attack(tmp_path, monkeypatch) -> None:
    def strict(x: Tensor) -> Tensor:
        if not bool(x.isfinite().all()):
            raise NotFiniteError
        return x.flatten(1)[:, :2]

    with pytest.raises(NotFiniteError):
        outside(tmp_path, monkeypatch, "asks", model=strict)


def test_an_error_names_the_attack_and_its_flag(tmp_path, monkeypatch) -> None:
    (tmp_path / "wanting.py").write_text("def odd(model, x, y, *, eps): return x\n")
    monkeypatch.chdir(tmp_path)
    for name, said in (("odd", "--attack wanting:odd: it has no argument draws"), ("od", "--attack wanting:od: ")):
        sys.modules.pop("wanting", None)
        with pytest.raises(UsageError) as refused:
            attack_named(f"wanting:{name}", EPS)
        assert str(refused.value).startswith(said)
