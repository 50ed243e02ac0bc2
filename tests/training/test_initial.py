"""Training from the weights of a network that was trained before, by bsk or elsewhere."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from toys import Silent, settings, stop_after, stopped, trained

from bsk.data.arrays import from_arrays
from bsk.data.store import DataFile, open_data
from bsk.errors import InputError, StoppedError, UsageError
from bsk.models.registry import build, network
from bsk.records import checkpoints
from bsk.records import jsonl as records
from bsk.records.checkpoints import MODEL, STATE
from bsk.training.flags import TrainingFlags
from bsk.training.initial import initial
from bsk.training.run import run

CPU = torch.device("cpu")


@pytest.fixture
def before(data: DataFile, tmp_path: Path) -> Path:
    """A network trained on the toy data, naturally."""
    out = tmp_path / "natural.safetensors"
    trained(out, data, settings("natural", epochs=2))
    return out


def weights(path: Path, kind: str = MODEL) -> dict[str, torch.Tensor]:
    found = checkpoints.load(path, kind)[0]
    return {
        name.removeprefix("model."): each for name, each in found.items() if name.startswith(("model.", "network."))
    }


def untouched(**changes: object):  # type: ignore[no-untyped-def]
    """A training with a learning rate of nearly 0, which keeps its initial weights."""
    return settings("natural", epochs=1, lr=1e-30, weight_decay=0.0, **changes)


def test_a_training_begins_with_a_checkpoint_and_says_so(before: Path, data: DataFile, tmp_path: Path) -> None:
    out, watcher = tmp_path / "m.safetensors", Silent()
    end = trained(out, data, untouched(init=str(before), model="cnn-4"), watcher=watcher)
    first, now = weights(before), weights(out)
    assert first.keys() == now.keys()
    for name in first:
        if "running" not in name and "num_batches" not in name:
            assert torch.equal(first[name], now[name]), name
    header = checkpoints.load(out, MODEL)[1]
    assert header["init"] == end["init"] == records.read(tmp_path / "m.jsonl")[0]["init"]
    told = {"path": str(before), "method": "natural", "dataset": "toy", "classes": 3, "loaded": len(first), "new": []}
    assert {**told, "normalisation": "the checkpoint's"}.items() <= header["init"].items()
    assert header["init"]["sha256"] == records.sha256(before)
    assert watcher.notices == [f"--init {before}: {len(first)} tensors loaded, normalisation: the checkpoint's"]


def test_its_normalisation_goes_with_its_weights(before: Path, data: DataFile, tmp_path: Path) -> None:
    other = replace(data, mean=[0.5], std=[0.7])
    trained(tmp_path / "m.safetensors", other, untouched(init=str(before)))
    tensors, header = checkpoints.load(tmp_path / "m.safetensors", MODEL)
    assert (header["mean"], header["std"]) == (data.mean, data.std) != (other.mean, other.std)
    torch.testing.assert_close(tensors["mean"].reshape(-1), torch.tensor(data.mean))


def test_it_resumes_bit_for_bit(before: Path, data: DataFile, tmp_path: Path) -> None:
    s = settings(init=str(before))
    trained(tmp_path / "whole.safetensors", data, s)
    watcher = Silent()
    stopped(tmp_path / "cut.safetensors", data, s, 1, 7, 5)
    moved = before.rename(tmp_path / "moved.safetensors")  # the same weights by another name
    trained(tmp_path / "cut.safetensors", data, settings(init=str(moved)), watcher=watcher)
    assert watcher.notices == [], "they are loaded at the first beginning alone"
    for name, kind in (("{}.safetensors", MODEL), ("{}.last.safetensors", STATE)):
        whole, cut = (checkpoints.load(tmp_path / name.format(each), kind)[0] for each in ("whole", "cut"))
        assert whole.keys() == cut.keys() and all(torch.equal(whole[k], cut[k]) for k in whole)
    fresh = trained(tmp_path / "fresh.safetensors", data, settings())
    assert fresh["checkpoint_sha256"] != records.sha256(tmp_path / "whole.safetensors")


def test_other_weights_make_another_training(before: Path, data: DataFile, tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    trained(out, data, settings(init=str(before)))
    trained(before, data, settings("natural", epochs=2, seed=2), force=True)
    for s in (settings(init=str(before)), settings()):
        with pytest.raises(InputError, match="was trained with other init"):
            trained(out, data, s)
    for path in (out, tmp_path / "m.last.safetensors"):
        with pytest.raises(UsageError, match="is a file that this training writes; choose another --out"):
            trained(out, data, settings(init=str(path)))


def test_the_model_is_the_checkpoints_own_where_nothing_else_is_said(before: Path, data: DataFile, tmp_path) -> None:
    flags = TrainingFlags(init=str(before), epochs=1, method="natural")
    record = run(flags, data, tmp_path / "m.safetensors", device=CPU, watcher=Silent())
    assert data.model == "cnn" and record["model"] == "cnn-4"
    with pytest.raises(UsageError, match=r"--model cnn-8: --init .* holds the network cnn-4; leave out --model"):
        run(replace(flags, model="cnn-8"), data, tmp_path / "n.safetensors", device=CPU, watcher=Silent())


def test_other_classes_get_a_layer_of_their_own(before: Path, data: DataFile, tmp_path: Path) -> None:
    split = data.split("train")
    images, labels = split.images.numpy(), split.labels.numpy()
    five = from_arrays((images, labels + 2 * (labels == 2)), classes=list("abcde"), val_images=40)
    same_number = from_arrays((images, labels), classes=list("xyz"), val_images=40)
    first = weights(before)
    for found in (five, same_number):
        out, watcher = tmp_path / f"{len(found.classes)}.safetensors", Silent()
        s = replace(untouched(init=str(before)), augment="none")
        trained(out, found, s, watcher=watcher)
        now, drawn = weights(out), build_like(found, s)
        new = {name for name in now if torch.equal(now[name], drawn[name]) and "num_batches" not in name}
        head = {"network.10.weight", "network.10.bias"}
        assert new == head
        assert all(torch.equal(now[name], first[name]) for name in first.keys() - head if ".weight" in name)
        said = checkpoints.load(out, MODEL)[1]["init"]
        assert said["new"] == sorted(name.removeprefix("network.") for name in head) and said["classes"] == 3
        assert f"new: {', '.join(said['new'])} (the file has 3 classes)" in watcher.notices[0]


def build_like(data: DataFile, s) -> dict[str, torch.Tensor]:  # type: ignore[no-untyped-def]
    """Return the weights that the seed draws."""
    classes = len(data.classes)
    model = build(s.model, classes=classes, channels=1, size=8, mean=data.mean, std=data.std, seed=s.seed)
    return {name: each for name, each in model.state_dict().items() if name.startswith("network.")}


def test_images_of_another_kind_are_refused(before: Path, tmp_path: Path) -> None:
    images = torch.randint(0, 255, (60, 1, 12, 12), dtype=torch.uint8).numpy()
    larger = from_arrays((images, torch.arange(60).remainder(3).numpy()), classes=list("abc"), val_images=9)
    with pytest.raises(InputError, match=r"--init .*: .* for images \(1, 8, 8\) does not fit images \(1, 12, 12\)"):
        trained(tmp_path / "m.safetensors", larger, untouched(init=str(before), augment="none"))


@pytest.mark.parametrize("theirs", ["none", "the data's"])
def test_anothers_weights_begin_with_the_normalisation_that_suits_them(theirs: str, data: DataFile, tmp_path) -> None:
    """Trained with or without the data's mean and std, and saved without this information."""
    plain = data if theirs == "the data's" else replace(data, mean=[0.0], std=[1.0])
    trained(tmp_path / "theirs.safetensors", plain, settings("natural", epochs=6, augment="none"))
    found = {name.removeprefix("network."): each for name, each in weights(tmp_path / "theirs.safetensors").items()}
    torch.save({"state_dict": found}, tmp_path / "theirs.pt")
    begin = initial(tmp_path / "theirs.pt", "cnn-4", data, data.split("val"), CPU)
    assert begin.record["normalisation"] == theirs
    assert begin.mean == plain.mean and begin.std == plain.std
    end = trained(tmp_path / "m.safetensors", data, settings(init=str(tmp_path / "theirs.pt")))
    assert end["init"]["normalisation"] == theirs and end["mean"] == plain.mean


def test_anothers_weights_for_other_classes(data: DataFile, tmp_path: Path) -> None:
    theirs = network("cnn-4", 7, 1, 8).state_dict()
    save_file(theirs, tmp_path / "seven.safetensors")
    begin = initial(tmp_path / "seven.safetensors", "cnn-4", data, data.split("val"), CPU)
    assert begin.record["classes"] == 7 and len(begin.new) == 2
    fresh = build("cnn-4", classes=3, channels=1, size=8, mean=[0.0], std=[1.0], seed=1)
    drawn = {name: each.clone() for name, each in fresh.network.state_dict().items()}
    begin.put_into(fresh)
    for name, each in fresh.network.state_dict().items():
        assert torch.equal(each, drawn[name] if name in begin.new else theirs[name]), name
    assert begin.summary().endswith("; if the network expects normalised images, save mean and std with its weights")
    torch.save({"state_dict": theirs, "mean": [0.3], "std": [0.2]}, tmp_path / "seven.pt")
    begin = initial(tmp_path / "seven.pt", "cnn-4", data, data.split("val"), CPU)
    assert (begin.mean, begin.std, begin.record["normalisation"]) == ([0.3], [0.2], "weights")
    assert begin.summary().endswith("(the file has 7 classes)")


def test_weights_that_do_not_fit_are_reported(data: DataFile, tmp_path: Path) -> None:
    wide = network("cnn-8", 3, 1, 8).state_dict()
    save_file(wide, tmp_path / "wide.safetensors")
    with pytest.raises(InputError, match="does not fit cnn-4: .* of another shape"):
        initial(tmp_path / "wide.safetensors", "cnn-4", data, data.split("val"), CPU)
    with pytest.raises(InputError, match="no such file"):
        initial(tmp_path / "none.safetensors", "cnn-4", data, data.split("val"), CPU)
    with pytest.raises(InputError, match="toy.safetensors"):
        initial(data.path, "cnn-4", open_data(data.path), data.split("val"), CPU)


def test_no_file_names_code_that_is_run(before: Path, data: DataFile, tmp_path: Path, monkeypatch) -> None:
    """A header may contain anything, so user-defined networks are imported only if the user names them."""
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.chdir(tmp_path)
    tensors, header = checkpoints.load(before, MODEL)
    checkpoints.save(before, tensors, {**header, "model": "evil:f"})
    with pytest.raises(UsageError, match=r"its network is a plugin; add --model evil:f if you trust"):
        run(TrainingFlags(init=str(before), epochs=1), data, tmp_path / "m.safetensors", device=CPU, watcher=Silent())
    with pytest.raises(UsageError, match="holds the network evil:f"):
        run(
            TrainingFlags(init=str(before), model="cnn-4", epochs=1),
            data,
            tmp_path / "m.safetensors",
            device=CPU,
            watcher=Silent(),
        )


def test_a_resumed_training_does_not_need_its_initial_weights(before: Path, data: DataFile, tmp_path) -> None:
    flags = TrainingFlags("natural", init=str(before), epochs=2, precision="fp32", augment="none", batch_size=64)
    trained(tmp_path / "whole.safetensors", data, flags)
    with pytest.raises(StoppedError):
        trained(tmp_path / "m.safetensors", data, flags, stopping=stop_after(3))
    before.unlink()
    end = trained(tmp_path / "m.safetensors", data, flags)
    assert trained(tmp_path / "m.safetensors", data, flags)["checkpoint_sha256"] == end["checkpoint_sha256"]
    whole, cut = (checkpoints.load(tmp_path / f"{name}.safetensors", MODEL) for name in ("whole", "m"))
    assert all(torch.equal(whole[0][name], cut[0][name]) for name in whole[0]) and whole[1]["init"] == cut[1]["init"]
    other = TrainingFlags("natural", init="typo.safetensors", epochs=2, precision="fp32", augment="none", batch_size=64)
    with pytest.raises(InputError, match="typo.safetensors: no such file; check --init"):
        trained(tmp_path / "m.safetensors", data, other)
    for force, out in ((True, "m"), (False, "new")):
        with pytest.raises(InputError, match="natural.safetensors: no such file; check --init"):
            trained(tmp_path / f"{out}.safetensors", data, flags, force=force)
    assert (tmp_path / "m.safetensors").exists()


def test_a_training_does_not_remove_what_it_begins_with(data: DataFile, tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    trained(out, data, settings("natural", epochs=2, save_every=1, ema=0.9))
    for name in ("m.epoch-1", "m.ema", "m.ema-last", "m.last", "m"):
        with pytest.raises(UsageError, match="is a file that this training writes"):
            trained(out, data, settings(init=str(tmp_path / f"{name}.safetensors")), force=True)
    assert (tmp_path / "m.epoch-1.safetensors").exists()


def test_weights_that_saw_other_data_of_the_name_are_a_doubt(before: Path, data: DataFile, toy: Path, call, tmp_path):
    """The other file may have been trained on images that are in test here."""
    from bsk.data.store import Info, Part, write

    parts = {name: Part(data.split(name).images.numpy(), data.split(name).labels.numpy()) for name in ("train", "val")}
    swapped = {"train": parts["val"], "val": parts["val"], "test": parts["train"]}
    write(tmp_path / "other.safetensors", swapped, Info("toy", ["a", "b", "c"], 0.1, [0.25], [0.2]))
    words = ["--method", "natural", "--epochs", 1, "--init", before, "--out", "m.safetensors", "--quiet"]
    call("train", "--data", "other.safetensors", *words)
    record = json.loads(call("evaluate", "m.safetensors", "--data", "other.safetensors", "--attack", "natural").stdout)
    assert "its initial weights were trained on other toy data" in record["doubts"][-1]
    assert record["init_sha256"] == records.sha256(before)
