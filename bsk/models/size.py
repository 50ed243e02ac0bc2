"""The size of the images a network is made for."""

from __future__ import annotations

Size = int | tuple[int, int]  # the side of square images in pixels, or height and width


def sides(size: Size) -> tuple[int, int]:
    """Return height and width in pixels."""
    return (size, size) if isinstance(size, int) else size
