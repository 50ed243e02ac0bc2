"""How far a method's start and perturbation move the network's output, and how close the perturbation is to optimal.

The first is shown in Figure 3; the second is the first-order stationary condition (FOSC) of Wang et al. (2019).
"""

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
from bsk.models.modes import folded_eval_mode
from bsk.perturb.ball import ball_around
from bsk.perturb.draws import Draws, example_draws, own_randomness
from bsk.perturb.losses import fosc, input_gradient, kl
from bsk.training.bound import Bound, UpdateContext
from bsk.training.settings import Settings
from bsk.training.state import State

IMAGES = 256  # the first images of the val split, the same every epoch
BATCH = 128


def divergences(
    state: State, settings: Settings, split: Split, share: Share, epoch: int, pause: Callable[[], None]
) -> dict[str, float]:
    """Return `kl_start`, `kl_ascent`, `fosc` and the number of images `kl_n`, if the settings ask for them.

    They are means over the images, computed in fp32 whatever the training's precision, so that a divergence near zero
    is still visible. The draws depend only on seed, epoch and image, so the training itself is not affected. The values
    are the method's own, also while another method rescues it; the method has no memory of these images. `pause` is
    called first and may raise to stop.

    Source: Figure 3, for the method being trained.
    """
    if not settings.log_divergence:
        return {}
    rows = share.of(torch.arange(min(IMAGES, len(split.labels))))
    sums, device = torch.zeros(4, dtype=torch.float64), state.sums.device
    pause()
    random = own_randomness(device, settings.seed, "divergence", epoch, share.rank)
    with folded_eval_mode(state.model), without_tf32(), random:
        for some in rows.split(BATCH):
            x, y = to_unit(split.images[some].to(device)), split.labels[some].to(device)
            draws = example_draws(settings.seed, f"divergence {epoch}", split.index[some].tolist(), device)
            done = epoch / settings.epochs
            found = divergence(settings.bound, state.model, x, y, draws, state.memory, epoch - 1, done)
            sums += torch.stack([sums.new_tensor(len(y)), *(each.sum() for each in found)])
    n, start, ascent, left = sum_over_processes(sums, share).tolist()
    return {"kl_start": start / n, "kl_ascent": ascent / n, "fosc": left / n, "kl_n": round(n)}


def divergence(
    method: Bound,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    draws: Draws,
    memory: Memory | None = None,
    epoch: int = 0,
    progress: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return KL(s(f(x)) || s(f(x'))) in nats for x' after the start and after the ascent, and the FOSC of the latter.

    Each is (N,) in fp64 on the CPU. FOSC is eps |g|_1 - <x' - x, g> with g the gradient of the cross entropy at x': how
    much the loss could still increase within the ball if it were linear. x' is projected onto the ball first.

    The model is in eval mode, so it does not change; what the method writes into its memory is discarded. The method
    has no memory of these images, and the result is that of the method itself while PGD rescues it.
    """
    kept = replace(memory or Memory(), images=len(x), rows={}, numbers={}, logged={})
    seen = kept.batch(torch.arange(len(x), device=x.device))
    context = UpdateContext(seen, 1, epoch, progress, lambda attack, turn: 1.0)
    before = [each.clone() for each in model.buffers()]
    net = Network(model)
    with net.scope:
        losses = method(net, x, y, draws, context)
    model.eval()  # a plugin method may have put it in train mode, and then moved its statistics
    for buffer, own in zip(model.buffers(), before, strict=True):
        buffer.copy_(own)
    if losses.start is None or losses.x_adv is None:
        raise UsageError(f"--log-divergence: {method.name} does not say where its perturbation starts and ends")
    with torch.no_grad():
        z, started, ascended = (model(each).cpu().double() for each in (x, losses.start, losses.x_adv))
    x_adv = ball_around(x, method.eps).project(losses.x_adv)
    left = fosc(x_adv - x, input_gradient(model, x_adv, y), method.eps).cpu().double()
    return kl(z, started).clamp(min=0), kl(z, ascended).clamp(min=0), left.clamp(min=0)  # rounding may give -1e-17
