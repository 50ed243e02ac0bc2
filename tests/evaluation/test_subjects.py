import resource
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import bsk
from bsk.attacks.registry import attack_named
from bsk.data.store import DataFile, open_data
from bsk.errors import InputError
from bsk.evaluation.run import evaluate
from bsk.evaluation.settings import EvaluationSettings
from bsk.evaluation.subjects import check_fit, foreign_subject, load_subject
from bsk.models.foreign import foreign_model
from bsk.models.registry import build
from bsk.records import checkpoints
from bsk.records import jsonl as records
from bsk.records.checkpoints import MODEL

CPU = torch.device("cpu")


@pytest.fixture
def data(toy: Path) -> DataFile:
    return open_data(toy)


@pytest.fixture
def x(data: DataFile) -> Tensor:
    return data.split("test").images / 255


@pytest.fixture
def checkpoint(data: DataFile, tmp_path: Path) -> Path:
    """A checkpoint as written by `bsk train`, but untrained."""
    model = build("cnn-4", classes=3, channels=1, size=8, mean=data.mean, std=data.std, seed=2)
    header = {
        "kind": MODEL,
        "model": "cnn-4",
        "classes": data.classes,
        "shape": [1, 8, 8],
        "dataset": "toy",
        "flags": {},
    }
    path = tmp_path / "bs.safetensors"
    checkpoints.save(path, model.state_dict(), {**header, "mean": data.mean, "std": data.std, "eps": data.eps})
    return path


def test_a_checkpoint_becomes_a_plain_state_dict_and_comes_back(checkpoint: Path, x: Tensor, tmp_path: Path) -> None:
    model = bsk.load(str(checkpoint))
    assert not model.training and torch.equal(model(x), load_subject(checkpoint, CPU).model(x))
    torch.save(model.state_dict(), tmp_path / "bs.pt")
    found = foreign_model("cnn-4", tmp_path / "bs.pt", classes=3, channels=1, size=8)
    assert torch.equal(found.model(x), model(x)) and found.normalisation == "weights"


@pytest.mark.parametrize(
    "field", [{"model": "resnet18-160"}, {"model": "wrn-130-40"}, {"model": "cnn-9000"}, {"shape": [1, 1600, 1600]}]
)
def test_a_header_that_names_a_large_network_allocates_nothing(
    field: dict[str, object], checkpoint: Path, tmp_path: Path
) -> None:
    tensors, header = checkpoints.load(checkpoint, MODEL)
    checkpoints.save(tmp_path / "large.safetensors", tensors, {**header, **field})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="header and tensors do not fit .*; train it again") as refused:
        load_subject(tmp_path / "large.safetensors", CPU)
    assert "\n" not in str(refused.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000  # kB


def test_a_checkpoint_replaced_while_it_is_read_is_told(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors, header = checkpoints.load(checkpoint, MODEL)
    loading = checkpoints.load

    def replaced(path, kind):
        loaded = loading(path, kind)
        checkpoints.save(path, tensors, {**header, "epoch": 2})
        return loaded

    monkeypatch.setattr(checkpoints, "load", replaced)
    with pytest.raises(InputError, match=r"bs.safetensors: changed while it was read; run the command again"):
        load_subject(checkpoint, CPU)


def test_an_exported_state_dict_needs_nothing_of_bsk(checkpoint: Path, x: Tensor, tmp_path: Path) -> None:
    foolbox = pytest.importorskip("foolbox")
    torch.save(bsk.load(checkpoint).state_dict(), tmp_path / "bs.pt")
    state = torch.load(tmp_path / "bs.pt", weights_only=True)
    layers: list[nn.Module] = []
    for inputs, outputs, stride in ((1, 4, 1), (4, 8, 2), (8, 16, 2)):
        layers += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    plain = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64, 3)).eval()
    plain.load_state_dict({k.removeprefix("network."): v for k, v in state.items() if k.startswith("network.")})
    usual = {"mean": state["mean"].flatten().tolist(), "std": state["std"].flatten().tolist(), "axis": -3}
    theirs = foolbox.PyTorchModel(plain, bounds=(0, 1), device="cpu", preprocessing=usual)
    torch.testing.assert_close(theirs(x), bsk.load(checkpoint)(x))


def test_a_foreign_subject_is_evaluated_as_any_other(checkpoint: Path, data: DataFile, tmp_path: Path) -> None:
    weights = tmp_path / "theirs.pt"
    torch.save({"state_dict": bsk.load(checkpoint).network.state_dict()}, weights)
    subject = foreign_subject("cnn-4", weights, data, data.mean, data.std, CPU)
    assert subject.sha256 == records.sha256(weights) and subject.notices == ()
    header = {"kind": "foreign", "model": "cnn-4", "flags": {}, "eps": 0.1}
    header |= {"classes": ["a", "b", "c"], "shape": [1, 8, 8], "dataset": "toy", "mean": [0.25], "std": [0.2]}
    assert subject.header == {**header, "normalisation": "flags", "code": None}
    check_fit(subject, data, data.split("test").shape)
    bench = EvaluationSettings(data, "test", None, data.eps, 0, 30, CPU)
    attack = attack_named("pgd-3", data.eps)
    (ours,) = evaluate(load_subject(checkpoint, CPU), [attack], bench, None, lambda *_: None)
    (theirs,) = evaluate(subject, [attack], bench, None, lambda *_: None)
    assert theirs["correct"] == ours["correct"] and theirs["model"] == "cnn-4" and theirs["method"] is None


def test_weights_without_normalisation_are_reported(checkpoint: Path, data: DataFile, tmp_path: Path) -> None:
    weights = tmp_path / "bare.pt"
    torch.save(bsk.load(checkpoint).network.state_dict(), weights)
    subject = foreign_subject("cnn-4", weights, data, None, None, CPU)
    assert (subject.header["normalisation"], subject.header["mean"]) == ("none", [0.0])
    (notice,) = subject.notices
    assert notice.startswith(str(weights)) and notice.endswith("common for toy: --mean 0.25 --std 0.2")
    torch.save(bsk.load(checkpoint).state_dict(), weights)
    subject = foreign_subject("cnn-4", weights, data, [0.5], [0.5], CPU)
    assert subject.notices == (f"{weights}: mean and 1 more not used",)


def test_foreign_weights_for_other_classes_are_refused(checkpoint: Path, data: DataFile, tmp_path: Path) -> None:
    model = build("cnn-4", classes=5, channels=1, size=8, mean=data.mean, std=data.std)
    torch.save(model.state_dict(), tmp_path / "five.pt")
    with pytest.raises(InputError, match="of another shape .*expected"):
        foreign_subject("cnn-4", tmp_path / "five.pt", data, None, None, CPU)
