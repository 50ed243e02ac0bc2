"""Decoding of image files to uint8 arrays."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import struct
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError
from PIL.Image import Transpose

from bsk.data.archive import LFS
from bsk.data.order import Images
from bsk.data.splits import Progress, Request
from bsk.data.store import Part
from bsk.data.tree import Tree, believable
from bsk.errors import InputError

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")  # none of these formats can run code
SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif"),
    *(".pbm", ".pgm", ".ppm", ".pnm", ".tif", ".tiff", ".webp"),
)
MODES = {"1": "L", "L": "L", "LA": "L", "P": "RGB", "PA": "RGB", "RGB": "RGB", "RGBA": "RGB", "CMYK": "RGB"}
MODES |= {"YCbCr": "RGB", "LAB": "RGB", "RGBX": "RGB", "HSV": "RGB"}
ORIENTATION = 0x0112  # the EXIF tag for the orientation
UPRIGHT = {  # the correction for each orientation, as in PIL.ImageOps.exif_transpose
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
_TORN = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    TypeError,
    struct.error,
)  # raised by Pillow for corrupt files
BROKEN = (*_TORN, Image.DecompressionBombError)
FILE = 1 << 26  # bytes of an image file, at most
AREA = 1 << 26  # pixels of an image, at most
DECODING = 8  # bytes per pixel during decoding, in Pillow and as an array
logging.getLogger("PIL").addHandler(logging.NullHandler())  # keep its messages off stderr


@dataclass(frozen=True)
class Shape:
    """The height and width of all images; `resize` enforces them, otherwise an error gives `advice`."""

    height: int
    width: int
    resize: bool = False
    advice: str = "pass --size N to resize"


def is_picture(name: str) -> bool:
    """Return whether a file has the ending of an image file and is not hidden."""
    return name.lower().endswith(SUFFIXES) and not name.rpartition("/")[2].startswith(".")


def decode(tree: Tree, name: str, shape: Shape | None, colour: bool = False) -> Images:
    """Return an image from a folder or archive; see `decoded`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return decoded(tree.read(name, FILE), tree.where(name), tree.most, shape, colour)


def decoded(data: bytes, where: str, most: int, shape: Shape | None, colour: bool = False) -> Images:
    """Return an image, (C, H, W) uint8: one channel if it is grayscale and `colour` is false, else RGB.

    Transparency is dropped, and the EXIF orientation is applied. With `shape.resize` the image is resized without
    keeping its aspect ratio. Pillow may emit warnings.

    Args:
        data: content of an image file.
        where: the beginning of messages.
        most: bytes of the decoded image, at most.
        shape: required height and width, None for any.
        colour: whether to return RGB in any case.

    Raises:
        InputError: it is not an image, corrupt, too large, has 16 bits per channel, is a compressed TIFF, or has
            another size than `shape`.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as file:
            mode = _mode(where, file, min(most, believable(len(data))))
            image = _upright(file)
            _check_size(where, image, shape)
            image = _converted(image, "RGB" if colour else mode)
            if shape and shape.resize:
                image = image.resize((shape.width, shape.height), Image.Resampling.BICUBIC)
            pixels = np.frombuffer(image.tobytes(), np.uint8)  # faster than np.asarray(image)
            array = pixels.reshape(image.height, image.width, -1).transpose(2, 0, 1)
    except BROKEN as error:
        if data.startswith(LFS):
            raise InputError(f"{where}: a Git LFS pointer instead of the file; fetch it with git lfs pull") from error
        kind = "not an image" if isinstance(error, UnidentifiedImageError) else "a corrupt image"
        raise InputError(f"{where}: {kind}; remove it or replace it") from error
    return array


def _converted(image: Image.Image, mode: str) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)


def _upright(image: Image.Image) -> Image.Image:
    """Return the image with its EXIF orientation applied; unreadable EXIF data are ignored."""
    image.load()  # Pillow rotates a TIFF here and updates its tag
    turn = None
    with contextlib.suppress(*BROKEN):
        turn = UPRIGHT.get(image.getexif().get(ORIENTATION, 1)) if image.info else None  # empty without metadata
    return image if turn is None else image.transpose(turn)


def _check_size(where: str, image: Image.Image, shape: Shape | None) -> None:
    width, height = image.size
    if shape and not shape.resize and (height, width) != (shape.height, shape.width):
        expected = f"{shape.width}x{shape.height} like the others"
        raise InputError(f"{where}: {width}x{height} pixels, expected {expected}; {shape.advice}")


def _mode(where: str, image: ImageFile.ImageFile, most: int) -> str:
    """Return the mode to convert to, L or RGB; raise an InputError if the image cannot be decoded in `most` bytes."""
    width, height = image.size
    area = min(AREA, most // DECODING)
    if width * height > area:
        raise InputError(f"{where}: {width}x{height} pixels, expected at most {area}; make it smaller")
    if any(tile[0] == "libtiff" for tile in image.tile):  # libtiff prints to stderr
        raise InputError(f"{where}: a compressed TIFF, expected an uncompressed one or PNG; convert it")
    if image.mode not in MODES or _more_than_8_bits(image):
        found = "more than 8 bits per channel" if image.mode in MODES else f"pixel mode {image.mode}"
        raise InputError(f"{where}: {found}, expected 8 bits per channel; convert it")
    return MODES[image.mode]


def _more_than_8_bits(image: ImageFile.ImageFile) -> bool:
    """Return whether Pillow would cut the samples of an image to their high bytes without a word."""
    for tile in image.tile:
        words = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        raw = next((word for word in words if isinstance(word, str)), "")
        most = words[-1] if str(tile[0]).startswith("ppm") and isinstance(words[-1], int) else 0
        if re.search(r";16[BLN]", raw) or most > 255:  # BGR;16 has 16 bits per pixel
            return True
    return False


def labelled(
    request: Request,
    tree: Tree,
    images: list[tuple[str, str]],
    classes: list[str],
    shape: Shape | None,
    colour: bool = False,
) -> Part:
    """Return the images of (class, file name) pairs with their labels; see `decode_all`."""
    number = {name: i for i, name in enumerate(classes)}
    labels = np.array([number[each] for each, _ in images], np.int64)
    return Part(decode_all(tree, [name for _, name in images], shape, colour, request.progress), labels)


def decode_all(
    tree: Tree, names: list[str], shape: Shape | None, colour: bool = False, progress: Progress | None = None
) -> Images:
    """Return the images of at least one name; see `stacked`. `progress` is called with the bytes read."""
    total = sum(tree.sizes.get(name, 0) for name in names)
    files = ((tree.where(name), tree.read(name, FILE)) for name in names)
    return stacked(files, len(names), tree.place, tree.most, shape, colour, progress and BytesRead(progress, total))


@dataclass
class BytesRead:
    """Reports the number of bytes read to `progress`."""

    progress: Progress
    total: int
    done: int = 0

    def add(self, size: int, now: bool) -> None:
        """Count more bytes, and report them if `now`."""
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
    report: BytesRead | None = None,
) -> Images:
    """Return n images, (n, C, H, W) uint8: grayscale if all are and `colour` is false, else RGB.

    Args:
        files: for each image its name in messages and the content of its file.
        n: number of images, at least one.
        place: the beginning of messages about all images.
        most: bytes of all decoded images, at most.
        shape: height and width of all images; None for those of the first.
        colour: whether to return RGB in any case.
        report: reports the bytes read.

    Raises:
        InputError: see `decoded`; or the decoded images are unreasonably large.
    """
    whole: Images | None = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for i, (where, data) in enumerate(files):
            image = decoded(data, where, most, shape, colour)
            if whole is None:
                shape = shape or Shape(*image.shape[1:])
                whole = _array_for(place, most, n, image, shape)
            elif (
                len(image) > whole.shape[1]
            ):  # the first colour image: the gray ones before it get three equal channels
                gray, whole = whole, _array_for(place, most, n, image, shape)
                whole[:i] = gray[:i]
            whole[i] = image
            if report:
                report.add(len(data), now=i > 0 and (i % 100 == 0 or i == n - 1))
    assert whole is not None
    return whole


def _array_for(place: str, most: int, n: int, image: Images, shape: Shape | None) -> Images:
    """Return an uninitialised array for n images like this one."""
    if not (shape and shape.resize) and n * image.size > most:  # with --size the user has chosen the size
        grown = f"{n} images of {image.shape[2]}x{image.shape[1]} pixels"
        raise InputError(f"{place}: {grown} from such small files are refused; pass --size N to shrink them")
    return np.empty((n, *image.shape), np.uint8)
