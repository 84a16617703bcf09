"""TIFF samples that Pillow has no mode for: 9 to 15 bits, signed, in planes, or with alpha.

Each plane is presented to Pillow and libtiff as greys: of its own depth where a pixel has one
sample of 8 or 16 bits, else of 8 bits, as many as a row has bytes. libtiff unpacks them, and the
samples are put together here.
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from serve.bundle.errors import InvalidImage
from serve.bundle.pictures import tiff as tags
from serve.bundle.pictures.samples import bands, flat, to_bytes
from serve.bundle.pictures.tiff import Tiff, with_directory

Samples = NDArray[np.uint8] | NDArray[np.uint16]


def read_deep(tiff: Tiff) -> Image.Image:
    """A TIFF's first page → "L" or "RGB", white at the largest value of the declared depth.

    Raises:
        InvalidImage: the samples differ in depth, or are of a rare depth and signed or predicted.
    """
    if len(set(tiff.tags.get(tags.BITS, (1,)))) != 1:
        raise InvalidImage("TIFFs whose samples differ in depth are not read")
    planes = [eight_bits(tiff, plane) for plane in range(tiff.planes)]
    return coloured(tiff, np.concatenate(planes, axis=-1))


def eight_bits(tiff: Tiff, plane: int) -> NDArray[np.uint8]:
    """uint8[H, W, samples] of one plane."""
    count, whole = tiff.samples // tiff.planes, tiff.bits in (8, 16)
    alone = whole and count == 1  # libtiff undoes a predictor of such samples
    if (tiff.signed and not whole) or (tiff.one(tags.PREDICTOR, 1) > 1 and not alone):
        raise InvalidImage(
            f"TIFFs of {count} x {tiff.bits} bits, signed or with a predictor, are not read"
        )
    rows = unpack(tiff, plane, count, tiff.bits if alone else 8)
    shape, white = (tiff.size[1], tiff.size[0], count), (1 << tiff.bits) - 1
    if whole:
        samples = rows.view(f"{tiff.order}u{tiff.bits // 8}").reshape(shape)
        return to_bytes(*(unsigned(samples, tiff.bits) if tiff.signed else (samples, white)))
    pixels = np.empty(shape, np.uint8)
    for band in bands(pixels):
        packed = numbers(rows[band], tiff.bits, shape[1] * count)
        pixels[band] = to_bytes(packed, white).reshape(-1, *shape[1:])
    return pixels


def unpack(tiff: Tiff, plane: int, count: int, unit: int) -> Samples:
    """One plane of so many samples a pixel, as [H, n] greys of ``unit`` bits."""

    def columns(width: int) -> int:
        return -(-width * count * tiff.bits // unit)

    kept = (tags.HEIGHT, tags.COMPRESSION, tags.FILL_ORDER, tags.PREDICTOR, tags.TILE_ROWS)
    told = {tag: tiff.tags[tag] for tag in kept if tag in tiff.tags}
    told |= {tags.WIDTH: (columns(tiff.size[0]),), tags.BITS: (unit,), tags.PHOTOMETRIC: (1,)}
    side = tags.TILE_WIDTH if tiff.tiled else tags.STRIP_ROWS
    told[side] = (columns(tiff.part[0]) if tiff.tiled else tiff.part[1],)
    for tag in tags.PLACES & tiff.tags.keys():
        told[tag] = tiff.tags[tag][plane * tiff.parts : (plane + 1) * tiff.parts]
    with TiffImageFile(io.BytesIO(with_directory(tiff, told))) as picture:
        return np.asarray(picture)


def unsigned(samples: Samples, bits: int) -> tuple[Samples, int]:
    """Signed samples from black on, and the value of white.

    White is the largest value of the type. Black is 0 where no sample is negative, else the
    smallest value: TIFF 6.0 doesn't say. Most files of int16 come from programs that hold samples
    from 0 to 32767.
    """
    half = 1 << (bits - 1)
    if int(samples.max()) < half:
        return samples, half - 1
    return samples ^ samples.dtype.type(half), 2 * half - 1


def numbers(rows: Samples, bits: int, count: int) -> NDArray[np.uint16]:
    """uint8[h, n], samples of some bits in a row without gaps → uint16[h, count]."""
    digits = np.unpackbits(rows.astype(np.uint8, copy=False), axis=1, count=bits * count)
    weights = (1 << np.arange(bits)[::-1]).astype(np.uint16)
    return digits.reshape(len(rows), count, bits) @ weights


def coloured(tiff: Tiff, pixels: NDArray[np.uint8]) -> Image.Image:
    """uint8[H, W, samples] → "L" or "RGB", by the file's kind of colours and transparency."""
    mode, count = {tags.RGB: ("RGB", 3), tags.CMYK: ("CMYK", 4)}.get(tiff.photometric, ("L", 1))
    if tiff.photometric == 0:  # WhiteIsZero
        pixels = np.concatenate([255 - pixels[..., :1], pixels[..., 1:]], axis=-1)
    if pixels.shape[2] > count < 4 and tiff.one(tags.EXTRA) in (1, 2):
        mode += "a" if tiff.one(tags.EXTRA) == 1 else "A"  # multiplied by the opacity, or not
        count += 1
    return flat(Image.frombytes(mode, tiff.size, pixels[..., :count].tobytes()))
