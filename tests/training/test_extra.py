"""Training with extra images: their fraction of every batch, their order, and the exclusion of held-out images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import Silent, settings, stopped, trained

from bsk.data.arrays import from_arrays
from bsk.data.batches import Loader, Share
from bsk.data.extra import Extra, mixed_order, open_extra
from bsk.data.store import DataFile, Info, Part, open_data, write
from bsk.errors import InputError, UsageError
from bsk.records import checkpoints
from bsk.records import jsonl as records
from bsk.records.checkpoints import MODEL, STATE
from bsk.training.flags import TrainingFlags
from bsk.training.settings import resolve

CPU = torch.device("cpu")


@pytest.fixture
def more(tmp_path: Path, data: DataFile) -> Path:
    """A prepared file of 90 other toy images, 4 of them held out: 3 for test and 1 for val."""
    random = np.random.default_rng(7)
    images = random.integers(0, 120, (90, 1, 8, 8), dtype=np.uint8)
    images[:3], images[3] = data.split("test").images[:3].numpy(), data.split("val").images[5].numpy()
    labels = np.arange(90, dtype=np.int64) % 3
    empty = Part(images[:0], labels[:0])
    path = tmp_path / "more.safetensors"
    info = Info("more", ["a", "b", "c"], 0.1, [0.25], [0.2])
    write(path, {"train": Part(images, labels), "val": empty, "test": Part(images[:1], labels[:1])}, info)
    return path


@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(1, 12), st.integers(1, 60), st.floats(0, 1), st.integers(1, 4)
)
def test_each_kind_comes_whole_before_any_comes_again(
    images: int, extra: int, size: int, total: int, fraction: float, epochs: int
) -> None:
    batches = [min(size, total - start) for start in range(0, total, size)]
    orders = [mixed_order(images, extra, batches, fraction, 3, epoch) for epoch in range(epochs)]
    for order in orders:
        assert order.shape == (total,)
        for batch in order.split(batches):
            assert int((batch >= images).sum()) == round(fraction * len(batch)), "the share of each batch"
    every = torch.cat(orders)
    for kind, n in ((every[every < images], images), (every[every >= images] - images, extra)):
        counts = torch.bincount(kind, minlength=n)
        assert counts.max() - counts.min() <= 1 and len(counts) == n
    assert torch.equal(orders[-1], mixed_order(images, extra, batches, fraction, 3, epochs - 1)), (
        "of (seed, epoch) alone"
    )


def test_the_order_goes_on_from_epoch_to_epoch_by_hand() -> None:
    orders = [mixed_order(4, 3, [2, 2, 2], 0.5, 1, epoch) for epoch in range(4)]
    own, other = ([each for o in orders for each in o.tolist() if (each < 4) == kind] for kind in (True, False))
    assert [sorted(own[i : i + 4]) for i in range(0, 12, 4)] == [[0, 1, 2, 3]] * 3, "3 of 4 an epoch, 12 in four"
    assert [sorted(other[i : i + 3]) for i in range(0, 12, 3)] == [[4, 5, 6]] * 4
    assert mixed_order(4, 3, [2, 2, 2], 0.5, 2, 0).tolist() != orders[0].tolist()
    firsts = [mixed_order(50, 50, [2] * 25, 0.5, 1, epoch)[::2] for epoch in range(4)]
    assert 20 < sum(int((first >= 50).sum()) for first in firsts) < 80, "neither kind comes first in a batch"


def test_a_batch_has_both_kinds_with_their_labels_and_rows_behind_the_others() -> None:
    images = torch.arange(20, dtype=torch.uint8)[:, None, None, None].expand(20, 1, 4, 4).contiguous()
    extra = Extra(images[12:], torch.arange(12, 20), 0.25, {})
    flags = {"batch_size": 8, "augment": "none", "seed": 1, "device": CPU, "extra": extra}
    loader = Loader(images[:12], torch.arange(12), **flags)
    batches = list(loader.epoch(0))
    assert len(loader) == 2 and [len(b.y) for b in batches] == [8, 4], "no epoch is longer than before"
    for batch in batches:
        assert torch.equal(batch.y, batch.rows) and torch.equal(batch.x[:, 0, 0, 0].mul(255).round().long(), batch.y)
        assert int((batch.rows >= 12).sum()) == len(batch.y) // 4
    shares = (Share(0, 2), Share(1, 2))
    parts = [list(Loader(images[:12], torch.arange(12), **flags, share=share).epoch(0)) for share in shares]
    assert torch.equal(torch.cat([part[0].rows for part in parts]), batches[0].rows)
    assert torch.equal(list(loader.epoch(0, skip=1))[0].rows, batches[1].rows)


def test_what_is_held_out_of_the_data_is_kept_out_of_training(more: Path, data: DataFile) -> None:
    said: list[str] = []
    found = open_extra(open_data(more), 0.5, data, said.append)
    assert len(found.labels) == 86 and found.record["left_out"] == 4 and found.record["images"] == 86
    held_out = {image.numpy().tobytes() for name in ("val", "test") for image in data.split(name).images}
    assert not held_out & {image.numpy().tobytes() for image in found.images}
    assert said == [f"--extra {more}: 4 images left out because val or test of the data has them too"]
    with pytest.raises(InputError, match="no image of its train split is left"):
        open_extra(from_arrays(_pair(data, "val"), classes=data.classes, val_images=3), 0.5, data, said.append)


def _pair(data: DataFile, name: str) -> tuple[np.ndarray, np.ndarray]:
    split = data.split(name)
    return split.images.numpy(), split.labels.numpy()


def test_it_resumes_bit_for_bit(more: Path, data: DataFile, tmp_path: Path) -> None:
    s = settings("fgsm-pgi", extra=str(more), extra_fraction=0.3)
    end = trained(tmp_path / "whole.safetensors", data, s)
    assert end["extra"] == {
        "path": str(more), "name": "more", "sha256": open_data(more).sha256, "images": 86, "left_out": 4,
    }  # fmt: skip
    stopped(tmp_path / "cut.safetensors", data, s, 1, 7, 5)
    moved = more.rename(tmp_path / "moved.safetensors")
    trained(tmp_path / "cut.safetensors", data, replace(s, extra=str(moved)))
    for name, kind in (("{}.safetensors", MODEL), ("{}.last.safetensors", STATE)):
        whole, cut = (checkpoints.load(tmp_path / name.format(each), kind)[0] for each in ("whole", "cut"))
        assert whole.keys() == cut.keys() and all(torch.equal(whole[k], cut[k]) for k in whole)
    kept = checkpoints.load(tmp_path / "cut.last.safetensors", STATE)[0]
    tables = [each for name, each in kept.items() if name.startswith("memory.rows.")]
    assert tables and all(len(each) == 240 + 86 for each in tables), "extra images are remembered too"
    log = [r for r in records.read(tmp_path / "whole.jsonl") if r["kind"] == "epoch"]
    plain = trained(tmp_path / "plain.safetensors", data, settings("fgsm-pgi"))
    assert sum(r["forward_passes"] for r in log) == plain["train_forward_passes"], "as many images an epoch"
    changed = replace(s, extra=None, extra_fraction=None)
    with pytest.raises(InputError, match="was trained with extra_fraction 0.3, now None, other extra"):
        trained(tmp_path / "cut.safetensors", data, changed)


def test_invalid_extra_images_are_one_line_errors(more: Path, data: DataFile, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--extra-fraction 0.5: has no meaning without --extra"):
        resolve(TrainingFlags(extra_fraction=0.5), data, CPU)
    for fraction in (0.0, 1.0, 0.001, 1.5):
        with pytest.raises(UsageError, match="leaves batches of 128 with only one kind of images"):
            resolve(TrainingFlags(extra=str(more), extra_fraction=fraction), data, CPU)
    assert resolve(TrainingFlags(extra=str(more)), data, CPU).extra_fraction == 0.5
    with pytest.raises(UsageError, match="--method rst: needs extra images; give them with --extra"):
        resolve(TrainingFlags(method="rst"), data, CPU)
    names = replace(data, classes=["x", "y", "z"])
    images, labels = np.arange(40 * 3 * 81, dtype=np.uint8).reshape(40, 3, 9, 9), np.arange(40) % 3
    size = from_arrays((images[:, :1], labels), classes=data.classes, val_images=4)
    colour = from_arrays((images[:, :, :8, :8], labels), classes=data.classes, val_images=4)
    with pytest.raises(InputError, match="class 0 is 'x', but 'a' in the data; give the same class names"):
        open_extra(names, 0.5, data, print)
    with pytest.raises(InputError, match="4 classes, but the data has 3; give images of the same classes"):
        open_extra(replace(names, classes=["a", "b", "c", "d"]), 0.5, data, print)
    with pytest.raises(InputError, match=r"images \(1, 9, 9\), but the data has \(1, 8, 8\); prepare it with that"):
        open_extra(size, 0.5, data, print)
    with pytest.raises(InputError, match=r"images \(3, 8, 8\), but the data has \(1, 8, 8\); give images with as many"):
        open_extra(colour, 0.5, data, print)
    with pytest.raises(UsageError, match="--extra nowhere: no data/nowhere.safetensors"):
        trained(tmp_path / "x.safetensors", data, settings("natural", extra="nowhere", extra_fraction=0.5))


def test_self_training_is_trades_on_both_kinds(more: Path, data: DataFile, tmp_path: Path) -> None:
    watcher = Silent()
    one = trained(tmp_path / "rst.safetensors", data, settings("rst", extra=str(more), extra_fraction=0.5))
    trained(tmp_path / "t.safetensors", data, settings("trades", extra=str(more), extra_fraction=0.5), watcher=watcher)
    found, same = (checkpoints.load(tmp_path / f"{name}.safetensors", MODEL)[0] for name in ("rst", "t"))
    assert all(torch.equal(found[name], same[name]) for name in found)
    assert one["flags"]["beta"] == 6.0 and len(watcher.notices) == 1


def test_generated_images_are_prepared_whole_to_train_with(call, tmp_path: Path, data: DataFile, toy: Path) -> None:
    """From arrays, like sets of generated images: nothing is held out, and a test split of the source is ignored."""
    random = np.random.default_rng(3)
    x, y = random.integers(0, 255, (50, 8, 8), dtype=np.uint8), np.arange(50) % 3
    np.savez(tmp_path / "generated.npz", image=x, label=y)
    words = ["prepare-data", "folder", "--from", "generated.npz", "--out", "g.safetensors", "--test-split", "none"]
    done = call(*words)
    found = open_data(tmp_path / "g.safetensors")
    assert found.counts == {"train": 50, "val": 0, "test": 0} and "bsk train --extra" in done.stderr
    split = found.split("train")
    assert sorted(map(bytes, split.images.numpy())) == sorted(map(bytes, x))
    np.savez(tmp_path / "both.npz", x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
    call(*[word.replace("generated", "both").replace("g.safe", "b.safe") for word in words])
    assert open_data(tmp_path / "b.safetensors").counts == {"train": 40, "val": 0, "test": 0}
    extra = replace(found, classes=data.classes)
    assert len(open_extra(extra, 0.5, data, print).labels) == 50
    refused = call("train", "--data", "g.safetensors", "--epochs", 1, "--model", "cnn-4", check=3)
    assert "0 val" in refused.line or "no val" in refused.line


def test_floats_and_bytes_become_one_kind_of_pixels() -> None:
    bytes_, floats = torch.randint(0, 256, (8, 1, 4, 4), dtype=torch.uint8), torch.rand(8, 1, 4, 4)
    for own, other in ((floats, bytes_), (bytes_, floats), (floats, floats)):
        extra = Extra(other, torch.arange(8), 0.5, {})
        flags = {"batch_size": 8, "augment": "none", "seed": 1, "device": CPU, "extra": extra}
        (batch,) = Loader(own, torch.arange(8), **flags).epoch(0)
        every = torch.cat([each if each.is_floating_point() else each.float() / 255 for each in (own, other)])
        torch.testing.assert_close(batch.x, every[batch.rows], rtol=0, atol=1e-7)
