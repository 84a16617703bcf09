"""TIFF samples that Pillow has no mode for: 9 to 16 bits, signed, or several of them with alpha.

They are presented to Pillow and libtiff as a grey picture of 8 or 16 bits that is as wide as a row
has bytes or samples. libtiff unpacks it, and the samples are put together here.
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serve.bundle.errors import InvalidImage
from serve.bundle.pictures import tiff as tags
from serve.bundle.pictures.samples import bands, over_ground, to_bytes
from serve.bundle.pictures.tiff import Tiff, with_directory

# Most samples (or bytes, of odd depths) that a deep TIFF unpacks to: beyond these Pillow warns of a
# decompression bomb. Greys of 16 bits may have 89 megapixels, with transparency 44.
MAX_SAMPLES = 89_478_485
PREDICTED = (5, 8, 32946, 50000)  # compressions that libtiff applies a predictor to


def read_deep(tiff: Tiff) -> Image.Image:
    """A TIFF's first page → "L" or "RGB", white at the largest value of the declared depth.

    Raises:
        InvalidImage: the samples differ in depth, or are too many.
    """
    if len(set(tiff.tags.get(tags.BITS, (1,)))) != 1:
        raise InvalidImage("TIFFs whose samples differ in depth are not read")
    if tiff.one(tags.PLANAR, 1) == 2:
        planes = [eight_bits(tiff, n, 1) for n in range(tiff.samples)]
        return assemble(tiff, np.stack(planes, axis=-1))
    pixels = eight_bits(tiff, 0, tiff.samples)
    return assemble(tiff, pixels.reshape(tiff.height, tiff.width, tiff.samples))


def eight_bits(tiff: Tiff, plane: int, samples: int) -> NDArray[np.uint8]:
    """uint8[H, W · samples] of one plane."""
    unit = tiff.bits if tiff.bits in (8, 16) else 8
    stored = undo_predictor(tiff, unpack(tiff, plane, samples, unit), samples)
    white = (1 << tiff.bits) - 1
    if tags.SIGNED in tiff.tags.get(tags.FORMAT, (1,)):
        return signed_to_bytes(stored, tiff.bits)
    if tiff.bits == unit:
        return to_bytes(stored, white)
    pixels = np.empty((tiff.height, tiff.width * samples), np.uint8)
    for rows in bands(pixels):
        pixels[rows] = to_bytes(numbers(stored[rows], tiff.bits, pixels.shape[1]), white)
    return pixels


def unpack(tiff: Tiff, plane: int, samples: int, unit: int) -> NDArray[np.generic]:
    """The bytes or samples of one plane, [H, columns], as libtiff unpacks them."""

    def columns(width: int) -> int:
        return -(-width * samples * tiff.bits // unit)

    if columns(tiff.width) * tiff.height > MAX_SAMPLES:
        raise InvalidImage(f"the TIFF has over {MAX_SAMPLES:,} deep samples; send 8 bits a channel")
    told = {
        tag: values
        for tag, values in tiff.tags.items()
        if tag in (tags.HEIGHT, tags.COMPRESSION, tags.FILL_ORDER, tags.TILE_ROWS)
    }
    told |= {tags.WIDTH: (columns(tiff.width),), tags.BITS: (unit,), tags.PHOTOMETRIC: (1,)}
    if tiff.tiled:
        told[tags.TILE_WIDTH] = (columns(tiff.part[0]),)
    else:
        told[tags.STRIP_ROWS] = (tiff.part[1],)
    for tag in (tags.STRIP_OFFSETS, tags.STRIP_BYTES, tags.TILE_OFFSETS, tags.TILE_BYTES):
        if tag in tiff.tags:
            told[tag] = tiff.tags[tag][plane * tiff.parts : (plane + 1) * tiff.parts]
    file = io.BytesIO(with_directory(tiff.data, tiff.order, told))
    with Image.open(file, formats=["TIFF"]) as picture:
        return np.asarray(picture)


def undo_predictor(tiff: Tiff, stored: NDArray[np.generic], samples: int) -> NDArray[np.generic]:
    """Add up the differences from the pixel to the left (TIFF 6.0, section 14)."""
    if tiff.one(tags.PREDICTOR, 1) == 1 or tiff.one(tags.COMPRESSION, 1) not in PREDICTED:
        return stored
    if tiff.one(tags.PREDICTOR, 1) != 2 or tiff.bits not in (8, 16):
        raise InvalidImage(f"TIFFs of {tiff.bits} bits with a predictor are not read")
    whole = np.empty(stored.shape, np.uint8 if tiff.bits == 8 else np.uint16)
    step = tiff.part[0] * samples  # the sums start anew in every tile
    for at in range(0, stored.shape[1], step):
        part = stored[:, at : at + step].reshape(len(stored), -1, samples)
        sums = np.cumsum(part, axis=1, dtype=whole.dtype)
        whole[:, at : at + step] = sums.reshape(len(stored), -1)
    return whole


def numbers(rows: NDArray[np.generic], bits: int, count: int) -> NDArray[np.uint16]:
    """uint8[h, n], samples of some bits in a row without gaps → uint16[h, count]."""
    digits = np.unpackbits(rows.astype(np.uint8), axis=1, count=bits * count)
    weights = (1 << np.arange(bits)[::-1]).astype(np.uint16)
    return digits.reshape(len(rows), count, bits) @ weights


def signed_to_bytes(stored: NDArray[np.generic], bits: int) -> NDArray[np.uint8]:
    """Signed samples → uint8: the whole range of the type, or its upper half if none is negative.

    TIFF 6.0 doesn't say which value of signed samples is black. Most files of int16 come from
    programs that hold samples from 0 to 32767.
    """
    if bits not in (8, 16):
        raise InvalidImage(f"signed samples of {bits} bits are not read; send 8 or 16 bits")
    half = 1 << (bits - 1)
    plain: NDArray[np.uint8] | NDArray[np.uint16]
    plain = stored.astype(np.uint8) if bits == 8 else stored.astype(np.uint16)
    if int(plain.max()) < half:
        return to_bytes(plain, half - 1)
    return to_bytes(plain ^ half, 2 * half - 1)


def assemble(tiff: Tiff, pixels: NDArray[np.uint8]) -> Image.Image:
    """uint8[H, W, samples] → "L" or "RGB", by the file's kind of colours and transparency."""
    kind = tiff.one(tags.PHOTOMETRIC, 0)
    count = {tags.RGB: 3, tags.CMYK: 4}.get(kind, 1)
    if pixels.shape[2] < count:
        raise InvalidImage("the TIFF is damaged: it has fewer samples than its colours need")
    colours = pixels[..., 0] if count == 1 else np.ascontiguousarray(pixels[..., :count])
    if kind == 0:  # WhiteIsZero
        colours = 255 - colours
    extra = tiff.one(tags.EXTRA, 0)
    if extra not in (1, 2) or pixels.shape[2] == count:
        return in_rgb(colours, count)
    alpha = pixels[..., count]
    if extra == 1:  # colours were multiplied by their opacity
        whole = np.maximum(alpha, 1).astype(np.uint16)
        whole = whole if count == 1 else whole[..., None]
        colours = np.minimum(colours.astype(np.uint16) * 255 // whole, 255).astype(np.uint8)
    return over_ground(in_rgb(colours, count), Image.fromarray(np.ascontiguousarray(alpha)))


def in_rgb(colours: NDArray[np.uint8], count: int) -> Image.Image:
    """uint8[H, W] or uint8[H, W, 3 or 4] → "L" or "RGB"."""
    if count < 4:
        return Image.fromarray(np.ascontiguousarray(colours))
    height, width = colours.shape[:2]
    return Image.frombytes("CMYK", (width, height), colours.tobytes()).convert("RGB")
