"""The proposals of Square: coloured squares for Linf, moving pyramids for L2 and L1.

A painter works on canvases, one per example, in a layout of its own and with the random numbers of that example.
`start` returns the initial canvases, `images` converts canvases to images, and `paint` returns the canvases proposed in
step `query` (R,) for the examples `owner` (R,), overwriting its input. A proposal depends only on the canvas, the
example and the step, so steps can be evaluated out of order.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from bsk.perturb.ball import L1, ball_around, length, per_image
from bsk.perturb.draws import ExampleDraws
from bsk.perturb.pixels import to_images, to_rows

P_INIT = 0.8  # fraction of the pixels that the first squares cover
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # queries after which this fraction is halved
TINY = 1e-12


def side(query: int, height: int, width: int) -> int:
    """Return the side in pixels of the square in step `query`, counted from 0.

    Source: Andriushchenko et al. (2020), section 5.1, as in the reference: not rescaled to the query budget.
    """
    share = P_INIT / 2 ** sum(query > each for each in HALVINGS)
    return min(max(round(math.sqrt(share * height * width)), 1), height, width)


class Sides:
    """A table of the sides of the squares, indexed by how often the fraction of the pixels has been halved."""

    def __init__(self, x: Tensor, odd: bool = False) -> None:
        """Take images (N, C, H, W); if `odd`, as for L2, sides are odd and at least 3 if the image is large enough."""
        height, width = x.shape[2:]
        sides = [side(query, height, width) for query in (0, *(each + 1 for each in HALVINGS))]
        if odd:
            sides = [min(max(each, 3) | 1, height, width) for each in sides]
        self.all = sides
        self.table, self.after = torch.tensor(sides, device=x.device), torch.tensor(HALVINGS, device=x.device)

    def halvings(self, query: Tensor) -> Tensor:
        """Return how often the share was halved before each step, (R,)."""
        return torch.bucketize(query, self.after)

    def __call__(self, query: Tensor) -> Tensor:
        """Return the sides in pixels of the steps `query`: (R,)."""
        return self.table[self.halvings(query)]


class Stripes:
    """Linf: every pixel is at a bound of the ball; first vertical stripes, then squares in the colour of either bound.

    Canvases are rows of pixels (R, H * W * C), so that a square is a set of indices into a row; bounds (N, 2, D) are
    the lower and upper bounds of the ball. Setting a pixel to a bound equals adding +-2 eps and projecting.
    """

    def __init__(self, x: Tensor, draws: ExampleDraws, eps: float) -> None:
        """Take the images, and the random streams that determine all squares and colours."""
        self.shape, self.draws, self.sides = x.shape[1:], draws, Sides(x)
        self.bounds = torch.stack([to_rows(each) for each in ball_around(x, eps)], dim=1)

    def start(self) -> Tensor:
        """Return canvases with vertical stripes."""
        channels, height, width = self.shape
        upper = self.draws.unit(width * channels).repeat(1, height) >= 0.5
        return torch.where(upper, self.bounds[:, 1], self.bounds[:, 0])

    def images(self, canvas: Tensor) -> Tensor:
        """Return the canvases as images."""
        return to_images(canvas, self.shape)

    def paint(self, canvas: Tensor, owner: Tensor, query: Tensor) -> Tensor:
        """Paint one square per canvas; each channel is set to one of the two bounds."""
        channels, height, width = self.shape
        s = self.sides(query)
        top, left, *colours = _numbers(self.draws, owner, query, 2 + channels)
        corner = _place(top, height - s) * width + _place(left, width - s)
        pixels = corner[:, None, None] + self._square(s)
        index = pixels * channels + torch.arange(channels, device=canvas.device)
        bound = 2 * owner[:, None] + (torch.stack(colours, dim=1) >= 0.5)
        painted = self.bounds.take(bound[:, None] * canvas.shape[1] + index)
        return canvas.scatter_(1, index.flatten(1), painted.flatten(1))

    def _square(self, s: Tensor) -> Tensor:
        """Return the offsets of a square's pixels from its corner: (R, S, 1).

        Squares smaller than the largest repeat their last row and column.
        """
        line = torch.minimum(torch.arange(int(s.max()), device=s.device), s[:, None] - 1)
        return (line[:, :, None] * self.shape[2] + line[:, None]).flatten(1)[..., None]


class Pyramids:
    """L2: the perturbation always has length eps; a step moves the mass of two windows into one of them.

    Canvases are images. Source: algorithm 3 and section 3.4 of the paper.

    Attributes:
        norm, order, fall: the norm, its order, and the power with which pyramids decay.
    """

    norm, order, fall = "l2", 2, 2

    def __init__(self, x: Tensor, draws: ExampleDraws, eps: float) -> None:
        """Take the images, and the random streams that determine all squares and signs."""
        self.x, self.eps, self.draws, self.sides = x, eps, draws, Sides(x, odd=True)
        most = max(self.sides.all)
        self.shapes = torch.stack([F.pad(self._square(s), (0, most - s, 0, most - s)) for s in self.sides.all])

    def _square(self, s: int) -> Tensor:
        return pyramids(s, self.x, self.order, self.fall)

    def start(self) -> Tensor:
        """Return images perturbed by a grid of 5 x 5 pyramids with random signs."""
        channels, height, width = self.x.shape[1:]
        s = max(height // 5, 1)
        first, rows, columns = max((height - 5 * s) // 2, 0), height // s, width // s
        numbers = self.draws.unit(1 + rows * columns * channels)
        signs = _sign(numbers[:, 1:]).view(len(self.x), channels, rows, columns)
        pyramid = self._square(s)
        tiles = torch.where((numbers[:, 0] > 0.5).view(-1, 1, 1, 1, 1, 1), pyramid.T, pyramid) * signs[..., None, None]
        grid = tiles.permute(0, 1, 2, 4, 3, 5).reshape(len(self.x), channels, rows * s, columns * s)
        delta = torch.zeros_like(self.x)
        place = delta[:, :, first : first + rows * s, first : first + columns * s]
        place.copy_(grid[:, :, : place.shape[2], : place.shape[3]])
        return self._scaled(self.x, delta)

    def _scaled(self, x: Tensor, delta: Tensor) -> Tensor:
        """Return x + eps delta / |delta|, clipped to [0, 1]."""
        return torch.addcmul(x, delta, per_image(self.eps / (length(delta, "l2") + TINY), delta)).clamp_(0, 1)

    def images(self, canvas: Tensor) -> Tensor:
        """Return the canvases, which are images already."""
        return canvas

    def paint(self, canvas: Tensor, owner: Tensor, query: Tensor) -> Tensor:
        """Move the perturbation of two windows into the first one, in its own direction plus that of a pyramid."""
        x, (channels, height, width), s = self.x[owner], self.x.shape[1:], self.sides(query)
        top, left, top2, left2, turn, *colours = _numbers(self.draws, owner, query, 5 + channels)
        place = _lines(_place(top, height - s), height), _lines(_place(left, width - s), width)
        place2 = _lines(_place(top2, height - s), height), _lines(_place(left2, width - s), width)
        first, second = _window(*place, s), _window(*place2, s)
        delta = canvas - x
        held = (delta.abs() ** self.order * (first | second)).sum(dim=(2, 3), keepdim=True)
        free = (self.eps**self.order - length(delta, self.norm) ** self.order).clamp(min=0)
        inside = delta * first
        bump = self._pyramid(query, *place, turn) * first * _sign(torch.stack(colours, dim=1))[..., None, None]
        aim = bump + inside / (self._norm(inside) + TINY)
        moved = aim / (self._norm(aim) + TINY) * self._window_norm(per_image(free, delta) / channels + held, channels)
        return self._scaled(x, torch.where(first, moved, torch.where(second, 0.0, delta)))

    def _pyramid(self, query: Tensor, down: Tensor, across: Tensor, turn: Tensor) -> Tensor:
        """Return the pyramids of the step, (R, 1, H, W), transposed where `turn` > 0.5.

        They are valid inside the window only.
        """
        most = self.shapes.shape[1] - 1
        i, j = torch.broadcast_tensors(down[:, :, None].clamp(0, most), across[:, None].clamp(0, most))
        turned, which = (turn > 0.5)[:, None, None], self.sides.halvings(query)[:, None, None]
        return self.shapes[which, torch.where(turned, j, i), torch.where(turned, i, j)][:, None]

    def _norm(self, delta: Tensor) -> Tensor:
        """Return the norm of each channel."""
        return (delta.abs() ** self.order).sum(dim=(2, 3), keepdim=True) ** (1 / self.order)

    def _window_norm(self, squared: Tensor, channels: int) -> Tensor:
        """Return the norm that a channel's window is given."""
        return squared.sqrt()


class Spikes(Pyramids):
    """L1: steeper pyramids, followed by projection onto the ball, so that only few pixels change.

    Source: the reference of AutoAttack, in which a window's norm is multiplied by the number of channels.
    """

    norm, order, fall = "l1", 1, 4

    def _scaled(self, x: Tensor, delta: Tensor) -> Tensor:
        """Return the image in the ball nearest to x + delta."""
        return L1(x, self.eps).project(x + delta)

    def _window_norm(self, squared: Tensor, channels: int) -> Tensor:
        return squared * channels


PAINTERS: dict[str, type[Stripes | Pyramids]] = {"linf": Stripes, "l2": Pyramids, "l1": Spikes}  # by norm


def pyramids(s: int, like: Tensor, order: int = 2, fall: int = 2) -> Tensor:
    """Return an s x s square of two flat pyramids, one up and one down, with total norm 1: (s, s).

    A pyramid is highest at its centre and decays with the larger of the horizontal and vertical distances from it: at
    distance k its height is the sum of 1 / (j + 1)^fall over all j >= k. The norm is that of the given `order`.
    Source: section 3.4, eq. (4), of the paper.
    """

    def one(height: int, width: int) -> Tensor:
        steps = max(height, width) // 2 + 1
        rows, columns = (torch.arange(n, device=like.device) for n in (height, width))
        far = torch.maximum((rows - height // 2).abs()[:, None], (columns - width // 2).abs()[None])
        terms = 1.0 / torch.arange(1, steps + 1, device=like.device, dtype=like.dtype) ** fall
        beyond = terms.flip(0).cumsum(0).flip(0)
        return torch.cat([beyond, beyond.new_zeros(1)])[far.clamp(max=steps)]

    up, down = one(s // 2, s), one(s - s // 2, s)
    both = torch.cat([_unit(up, order), -_unit(down, order)])
    return _unit(both, order)


def _unit(square: Tensor, order: int) -> Tensor:
    unit: Tensor = square / torch.linalg.vector_norm(square, ord=order).clamp(min=TINY)
    return unit


def _lines(first: Tensor, size: int) -> Tensor:
    """Return the offset of each line of an image from the first line of a square: (R, size), for `first` (R,)."""
    return torch.arange(size, device=first.device) - first[:, None]


def _window(down: Tensor, across: Tensor, s: Tensor) -> Tensor:
    """Return masks (R, 1, H, W) of squares with sides s (R,), from the offsets of the lines from the first."""
    rows, columns = ((lines >= 0) & (lines < s[:, None]) for lines in (down, across))
    return (rows[:, :, None] & columns[:, None])[:, None]


def _sign(numbers: Tensor) -> Tensor:
    return (numbers >= 0.5) * 2.0 - 1.0


def _place(number: Tensor, room: Tensor) -> Tensor:
    """Return a row or column from U[0, 1); as in the reference, the last possible position is never chosen."""
    return (number * room).long()


def _numbers(draws: ExampleDraws, owner: Tensor, query: Tensor, count: int) -> tuple[Tensor, ...]:
    """Return `count` numbers in [0, 1) for each step, each (R,); they follow those used by the start."""
    return draws.unit_at(owner, draws.position + query * count, count).unbind(dim=1)
