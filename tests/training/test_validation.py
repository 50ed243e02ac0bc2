"""The accuracies that select an epoch, against a plain PGD-20 on every image, and their cost."""

from typing import Any

import pytest
import torch
from toys import EPS, settings

from bsk.data.batches import Share
from bsk.data.store import DataFile, Split
from bsk.training.initial import new_state
from bsk.training.validation import validate


@pytest.mark.parametrize("right", [0, 1, 60])
def test_validation_is_natural_and_pgd_20_accuracy_and_attacks_only_what_is_right(right: int, data: DataFile) -> None:
    torch.manual_seed(0)
    s = settings("fast-at")
    model = new_state(s, data, 1, 8, torch.device("cpu")).model
    val = data.split("val")
    x = val.images.float() / 255
    with torch.no_grad():
        said = model.eval()(x).argmax(dim=1)
    y = (said + 1) % 3
    y[:right] = said[:right]
    stands, at = said == y, x
    for _ in range(20):
        leaf = at.clone().requires_grad_()
        torch.nn.functional.cross_entropy(model(leaf), y, reduction="sum").backward()
        assert leaf.grad is not None
        at = (at + EPS / 4 * leaf.grad.sign()).clamp(x - EPS, x + EPS).clamp(0, 1)
        with torch.no_grad():
            stands &= model(at).argmax(dim=1) == y
    rows: list[int] = []
    forward = model.forward

    def watched(images: torch.Tensor) -> Any:
        rows.append(len(images))
        return forward(images)

    model.forward = watched  # type: ignore[method-assign]
    found = validate(model, s, Split(val.images, y, val.index), None, Share(), 1, lambda: None)
    n = len(y)
    assert (found.val_natural, found.val_robust) == (right / n, int(stands.sum()) / n)
    assert rows[0] == n and all(each <= right for each in rows[1:]) and (len(rows) > 1) is (right > 0)
