"""The batches of an epoch: every image once, with crops and flips equal to those of an independent loop."""

import numpy as np
import pytest
import torch

from bsk.data.batches import WHOLE, Loader, Share, to_unit
from bsk.perturb.draws import generator

CPU = torch.device("cpu")


def loader(n: int = 50, augment: str = "none", batch_size: int = 16, seed: int = 1, share: Share = WHOLE) -> Loader:
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 3, 6, 5), generator=random, dtype=torch.uint8)
    return Loader(images, torch.arange(n), batch_size=batch_size, augment=augment, seed=seed, device=CPU, share=share)


def test_an_epoch_has_every_image_once_in_an_order_of_its_own() -> None:
    orders = [torch.cat([b.y for b in loader().epoch(epoch)]) for epoch in (0, 0, 1)]
    assert sorted(orders[0].tolist()) == list(range(50))
    assert torch.equal(orders[0], orders[1]) and not torch.equal(orders[0], orders[2])
    assert [len(b.y) for b in loader().epoch(0)] == [16, 16, 16, 2] and len(loader()) == 4


def test_images_are_scaled_and_follow_their_labels() -> None:
    subject = loader()
    for batch in subject.epoch(3):
        assert batch.x.dtype == torch.float32 and batch.x.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(batch.x, subject.images[batch.y].double().div(255).float())


def test_crops_and_flips_by_a_naive_loop() -> None:
    subject, plain = loader(augment="crop-flip"), loader()
    random = generator(1, "epoch", 2)
    order = torch.randperm(50, generator=random)
    top, left = torch.randint(0, 9, (2, 50), generator=random)
    flip = torch.randint(0, 2, (50,), generator=random)
    expected = []
    for row, i, j, mirrored in zip(order.tolist(), top.tolist(), left.tolist(), flip.tolist(), strict=True):
        padded = np.pad(plain.images[row].numpy(), ((0, 0), (4, 4), (4, 4)))
        cut = padded[:, i : i + 6, j : j + 5]
        expected.append(cut[:, :, ::-1] if mirrored else cut)
    found = torch.cat([b.x for b in subject.epoch(2)])
    torch.testing.assert_close(found, torch.from_numpy(np.stack(expected) / 255).float())
    assert top.min() == 0 and top.max() == 8, "every offset of the padding can come"


def test_flip_alone_never_crops() -> None:
    for batch in loader(augment="flip").epoch(0):
        clean = to_unit(loader().images[batch.y])
        same = (batch.x == clean).flatten(1).all(1)
        mirrored = (batch.x == clean.flip(3)).flatten(1).all(1)
        assert bool((same | mirrored).all())


@pytest.mark.parametrize("augment", ["crop-flip", "none"])
def test_resuming_within_an_epoch_gives_the_remaining_batches(augment: str) -> None:
    whole, rest = list(loader(augment=augment).epoch(5)), list(loader(augment=augment).epoch(5, skip=2))
    assert len(rest) == 2
    for a, b in zip(whole[2:], rest, strict=True):
        assert torch.equal(a.x, b.x) and torch.equal(a.y, b.y)


def test_processes_take_parts_of_the_same_batches() -> None:
    whole = list(loader(51, augment="crop-flip").epoch(0))
    parts = [list(loader(51, augment="crop-flip", share=Share(rank, 3)).epoch(0)) for rank in range(3)]
    for i, batch in enumerate(whole):
        assert torch.equal(torch.cat([p[i].x for p in parts]), batch.x)
        assert {p[i].total for p in parts} == {len(batch.y)}
