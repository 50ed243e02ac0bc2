"""Image files to arrays of bytes."""

from __future__ import annotations

import contextlib
import io
import logging
import struct
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError
from PIL.Image import Transpose

from bsk.data.order import Images
from bsk.data.splits import Progress, Request
from bsk.data.store import Part
from bsk.data.tree import Tree, believable
from bsk.errors import InputError

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")  # none of these runs anything
SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif"),
    *(".pbm", ".pgm", ".ppm", ".pnm", ".tif", ".tiff", ".webp"),
)
MODES = {"1": "L", "L": "L", "LA": "L", "P": "RGB", "PA": "RGB", "RGB": "RGB", "RGBA": "RGB", "CMYK": "RGB"}
MODES |= {"YCbCr": "RGB", "LAB": "RGB", "RGBX": "RGB", "HSV": "RGB"}
ORIENTATION = 0x0112  # the tag of EXIF that says how the image was held
UPRIGHT = {  # what its values ask for, as PIL.ImageOps.exif_transpose has it
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
_TORN = (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, struct.error)  # what Pillow raises
BROKEN = (*_TORN, Image.DecompressionBombError)
FILE = 1 << 26  # bytes of one image file
AREA = 1 << 26  # pixels of one image
DECODING = 8  # bytes that a pixel takes while an image is decoded, in Pillow and as an array
logging.getLogger("PIL").addHandler(logging.NullHandler())  # else its errors are lines on stderr beside ours


@dataclass(frozen=True)
class Shape:
    """Height and width that all images must have; `resize` says to make them so, `advice` what else to do."""

    height: int
    width: int
    resize: bool = False
    advice: str = "pass --size N to resize"


def is_picture(name: str) -> bool:
    """Return whether a file's name ends as those of images do, and it is not hidden."""
    return name.lower().endswith(SUFFIXES) and not name.rpartition("/")[2].startswith(".")


def decode(tree: Tree, name: str, shape: Shape | None, colour: bool = False) -> Images:
    """Return an image of a folder or archive; see `decoded`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return decoded(tree.read(name, FILE), tree.where(name), tree.most, shape, colour)


def decoded(data: bytes, where: str, most: int, shape: Shape | None, colour: bool = False) -> Images:
    """Return an image, (C, H, W) uint8: one channel if it is grayscale and not to have `colour`, else RGB.

    Transparency is dropped, and what EXIF says lies on its side is turned upright. With `shape.resize` it becomes that
    size, whatever its proportions. Pillow warns of some images.

    Args:
        data: what an image file holds.
        where: what messages begin with.
        most: bytes that it may become.
        shape: what it must have, None for any.
        colour: whether it is to be RGB.

    Raises:
        InputError: it is no image, torn, too large, of 16 bits a channel, a compressed TIFF, or of another size than
            `shape`.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as file:
            mode = _mode(where, file, min(most, believable(len(data))))
            image = _upright(file)
            _check_size(where, image, shape)
            image = _converted(image, "RGB" if colour else mode)
            if shape and shape.resize:
                image = image.resize((shape.width, shape.height), Image.Resampling.BICUBIC)
            array = np.asarray(image, np.uint8)
    except BROKEN as error:
        kind = "no image" if isinstance(error, UnidentifiedImageError) else "not a whole image"
        raise InputError(f"{where}: {kind}; remove it or replace it") from error
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def _converted(image: Image.Image, mode: str) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)


def _upright(image: Image.Image) -> Image.Image:
    """Return the image as it is to be seen; one whose EXIF cannot be read lies as it is."""
    image.load()  # a TIFF turns itself meanwhile, and then says so
    turn = None
    with contextlib.suppress(*BROKEN):
        turn = UPRIGHT.get(image.getexif().get(ORIENTATION, 1)) if image.info else None  # all metadata are there
    return image if turn is None else image.transpose(turn)


def _check_size(where: str, image: Image.Image, shape: Shape | None) -> None:
    width, height = image.size
    if shape and not shape.resize and (height, width) != (shape.height, shape.width):
        expected = f"{shape.width}x{shape.height} as in the others"
        raise InputError(f"{where}: {width}x{height} pixels, expected {expected}; {shape.advice}")


def _mode(where: str, image: ImageFile.ImageFile, most: int) -> str:
    """Return L or RGB, if the image can be decoded in `most` bytes."""
    width, height = image.size
    area = min(AREA, most // DECODING)
    if width * height > area:
        raise InputError(f"{where}: {width}x{height} pixels, expected at most {area}; make it smaller")
    if any(tile[0] == "libtiff" for tile in image.tile):  # which writes lines of its own to stderr
        raise InputError(f"{where}: a compressed TIFF, expected one that is not, or PNG; convert it")
    if image.mode not in MODES:
        raise InputError(f"{where}: pixels of kind {image.mode}, expected 8 bits a channel; convert it")
    return MODES[image.mode]


def labelled(
    request: Request,
    tree: Tree,
    images: list[tuple[str, str]],
    classes: list[str],
    shape: Shape | None,
    colour: bool = False,
) -> Part:
    """Return the images, given as class and name, with their labels; see `decode_all`."""
    number = {name: i for i, name in enumerate(classes)}
    labels = np.array([number[each] for each, _ in images], np.int64)
    return Part(decode_all(tree, [name for _, name in images], shape, colour, request.progress), labels)


def decode_all(
    tree: Tree, names: list[str], shape: Shape | None, colour: bool = False, progress: Progress | None = None
) -> Images:
    """Return the images of these names, at least one; see `stacked`. `progress` gets the bytes that are done."""
    total = sum(tree.sizes.get(name, 0) for name in names)
    files = ((tree.where(name), tree.read(name, FILE)) for name in names)
    return stacked(files, len(names), tree.place, tree.most, shape, colour, progress and Told(progress, total))


@dataclass
class Told:
    """Whom to tell how many bytes are done, of how many."""

    progress: Progress
    total: int
    done: int = 0

    def add(self, size: int, now: bool) -> None:
        """Count so many more bytes, and tell of them `now`."""
        self.done += size
        if now:
            self.progress(self.done, self.total)


def stacked(
    files: Iterable[tuple[str, bytes]],
    n: int,
    place: str,
    most: int,
    shape: Shape | None,
    colour: bool = False,
    told: Told | None = None,
) -> Images:
    """Return n images, (n, C, H, W) uint8: grayscale if all are and no `colour` is wanted, else RGB.

    Args:
        files: what messages call each image, and the bytes of its file.
        n: how many these are, at least one.
        place: what messages about all of them begin with.
        most: bytes that all may become.
        shape: what each must have; None for the size of the first.
        colour: whether they are to be RGB.
        told: who hears of the bytes that are done.

    Raises:
        InputError: see `decoded`; or all together would be beyond reason.
    """
    whole: Images | None = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for i, (where, data) in enumerate(files):
            image = decoded(data, where, most, shape, colour)
            if whole is None:
                shape = shape or Shape(*image.shape[1:])
                whole = _room(place, most, n, image, shape)
            elif len(image) > whole.shape[1]:  # the first in colour: all before it get three equal channels
                gray, whole = whole, _room(place, most, n, image, shape)
                whole[:i] = gray[:i]
            whole[i] = image
            if told:
                told.add(len(data), now=i > 0 and (i % 100 == 0 or i == n - 1))
    assert whole is not None
    return whole


def _room(place: str, most: int, n: int, image: Images, shape: Shape | None) -> Images:
    """Return an array for n images like this one."""
    if not (shape and shape.resize) and n * image.size > most:  # a size that was asked for is the user's own
        grown = f"{n} images of {image.shape[2]}x{image.shape[1]} pixels"
        raise InputError(f"{place}: {grown} out of files so small are refused; pass --size N to make them smaller")
    return np.empty((n, *image.shape), np.uint8)
