"""How far a method's start, and its whole perturbation, move the network's output: what Figure 3 shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from bsk.compat import without_tf32
from bsk.contract.method import Memory
from bsk.contract.network import Network
from bsk.data.batches import Share, to_unit
from bsk.data.processes import sum_over_processes
from bsk.data.store import Split
from bsk.errors import UsageError
from bsk.models.modes import standing_still
from bsk.perturb.draws import Draws, example_draws
from bsk.perturb.losses import kl
from bsk.training.bound import Bound, UpdateContext
from bsk.training.settings import Settings
from bsk.training.state import State

IMAGES = 256  # the first of the val split, the same every epoch
BATCH = 128


def divergences(
    state: State, settings: Settings, split: Split, share: Share, epoch: int, pause: Callable[[], None]
) -> dict[str, float]:
    """Return `kl_start`, `kl_ascent` and the number of images they are means over, if the settings ask for them.

    Whatever the training's precision, in fp32, in which a divergence near zero can still be seen. The draws depend on
    (seed, epoch, image) alone, so that the training's own are what they would be without. The row is the method's
    own, also where another one rescues it. `pause` is called first and may raise to stop.

    Source: Figure 3, for the method that is trained, whichever it is.
    """
    if not settings.log_divergence:
        return {}
    rows = share.of(torch.arange(min(IMAGES, len(split.labels))))
    sums, device = torch.zeros(3, dtype=torch.float64), state.sums.device
    pause()
    with standing_still(state.model), without_tf32():
        for some in rows.split(BATCH):
            x, y = to_unit(split.images[some].to(device)), split.labels[some].to(device)
            draws = example_draws(settings.seed, f"divergence {epoch}", split.index[some].tolist(), device)
            both = divergence(settings.bound, state.model, x, y, draws, state.memory, epoch - 1)
            sums += torch.stack([sums.new_tensor(len(y)), *(each.sum() for each in both)])
    n, start, ascent = sum_over_processes(sums.to(state.sums), share).tolist()
    return {"kl_start": start / n, "kl_ascent": ascent / n, "kl_n": round(n)}


def divergence(
    method: Bound, model: nn.Module, x: Tensor, y: Tensor, draws: Draws, memory: Memory | None = None, epoch: int = 0
) -> tuple[Tensor, Tensor]:
    """Return KL(s(f(x)) || s(f(x'))) in nats, (N,) fp64 on the CPU, for x' after the start and after the ascent.

    The model is in eval mode, so that nothing of it changes; what the method writes into its memory is dropped. These
    images have no rows in it, and where PGD rescues the method it is looked at without.
    """
    kept = replace(memory or Memory(), images=len(x), rows={}, numbers={}, logged={})
    context = UpdateContext(kept.batch(torch.arange(len(x))), 1, epoch, 1.0, lambda attack, turn: 1.0)
    losses = method(Network(model), x, y, draws, context)
    if losses.start is None or losses.x_adv is None:
        raise UsageError(f"--log-divergence: {method.name} does not say where its perturbation starts and ends")
    with torch.no_grad():
        z, started, ascended = (model(each).cpu().double() for each in (x, losses.start, losses.x_adv))
    return kl(z, started).clamp(min=0), kl(z, ascended).clamp(min=0)  # rounding may leave -1e-17
