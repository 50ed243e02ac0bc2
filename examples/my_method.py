"""Your own method: bsk train --method examples.my_method:worse_of_two."""

import torch

import bsk
from bsk import Losses
from bsk.perturb.losses import kl


def worse_of_two(net, x, y, *, eps, draws, beta=6.0):
    """TRADES whose perturbation is the worse of two random ones.

    Args:
        beta: weight of the KL term.
    """
    points = [(x + eps * draws.uniform(x).sign()).clamp(0, 1) for _ in range(2)]
    with net.frozen() as f, torch.no_grad():
        clean = f(x)
        moved = [kl(clean, f(point)) for point in points]
    worse = (moved[0] > moved[1])[:, None, None, None]
    x_adv = points[0].where(worse, points[1])
    z = net(x)
    natural, robust = net.cross_entropy(z, y), kl(z, net(x_adv))
    return Losses(natural + beta * robust, natural, robust, start=points[0], x_adv=x_adv)


if __name__ == "__main__":
    run = bsk.train("digits", "examples.my_method:worse_of_two", epochs=5, schedule="cyclic", progress=False)
    print(run)
