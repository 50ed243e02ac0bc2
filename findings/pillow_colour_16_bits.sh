#!/bin/sh
# Pillow 13.0.0: a PNG with 16 bits per colour sample loses its low bytes without a word, a gray one does not.
#
# Expected: as with gray PNGs (mode I;16) the values survive, or opening or converting says that they do not.
# Observed: the mode is RGB, and each sample is its high byte. A picture with 12 significant bits, as microscopes and
# cameras write them, has levels 0 to 15 of 255: it is black, and a level is 16 times as large. The same values in a PPM
# of maximum 4095 are scaled instead, to 0 to 255. No warning is given for either.
#
# torchvision's ImageFolder, Hugging Face's Image feature and most loaders open pictures with Pillow. A data set of such
# PNGs trains on 16 levels, and a radius of 8/255 is half of its range.
#
# Exits with 0 if the problem still exists, with 1 if not.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'pillow==13.0.0' 'numpy==2.4.6'
cat > "$folder/look.py" <<'PYTHON'
import io
import struct
import warnings
import zlib

import numpy as np
import PIL
from PIL import Image

print("Pillow", PIL.__version__)
warnings.simplefilter("error")
levels = np.linspace(0, 4095, 64).astype(">u2").reshape(8, 8)  # 12 significant bits


def png(samples, colour_type):
    lines = b"".join(b"\0" + line.tobytes() for line in samples)
    header = struct.pack(">2I5B", 8, 8, 16, colour_type, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    chunks = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


colour = np.repeat(levels[..., None], 3, axis=2)
files = {
    "gray PNG": png(levels, 0),
    "colour PNG": png(colour, 2),
    "colour PPM": b"P6 8 8 4095\n" + colour.tobytes(),
}
found = {}
for name, content in files.items():
    image = Image.open(io.BytesIO(content))
    pixels = np.asarray(image)
    found[name] = image.mode, int(pixels.max()), len(np.unique(pixels))
    print(f"{name}: mode {image.mode}, largest value {pixels.max()}, {len(np.unique(pixels))} different values")
assert found["gray PNG"] == ("I;16", 4095, 64)
assert found["colour PNG"] == ("RGB", 15, 16)
assert found["colour PPM"] == ("RGB", 255, 64)
PYTHON
"$folder/env/bin/python" "$folder/look.py"
