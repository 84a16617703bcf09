"""What reading a file costs, by kind and size, beside Pillow; part of ``python -m bench.framing``.

The peer opens, converts and stretches the file by Pillow alone: what most services do, and what
this one did before framing. It neither looks for ink nor cares how files are made: EXIF, 16 bits,
transparency. Both take turns for ROUNDS rounds; the results are medians, in ms of CPU.
"""

import io
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.photographs import large_photograph
from serve.bundle.images import PixelBudget, read_image, write_png
from serve.bundle.manifest import ImageSpec

ROUNDS = 9
MEASURED_MS = 30  # of each contender in each round, at least one call
TWO_MEGAPIXELS, TWELVE_MEGAPIXELS = (1_632, 1_224), (4_032, 3_024)

Pixels = NDArray[np.uint8]


def print_reading(digit: Pixels, spec: ImageSpec) -> None:
    """Print the table for files of one digit, uint8[28, 28]."""
    print("\n| file | kB | ms | Pillow, ms | × Pillow |\n|---|---|---|---|---|")
    for name, data in files(digit):
        own, pillow = compare(
            lambda data=data: read_image(data, spec, PixelBudget()),
            lambda data=data: stretch_with_pillow(data, spec),
        )
        ratio = statistics.median(a / b for a, b in zip(own, pillow, strict=True))
        times = f"{statistics.median(own):.2f} | {statistics.median(pillow):.2f} | {ratio:.2f}"
        print(f"| {name} | {len(data) / 1_000:,.1f} | {times} |", flush=True)


def files(digit: Pixels) -> Iterator[tuple[str, bytes]]:
    """(name, file) of each kind and size."""
    small, random = Image.fromarray(digit), np.random.default_rng(0)
    yield "PNG, 28 × 28, grey", write_png(digit[None])
    yield "PNG, 28 × 28, RGBA", write(small.convert("RGBA"), "PNG")
    yield "PNG, 280 × 280, grey", write(small.resize((280, 280), Image.Resampling.BICUBIC), "PNG")
    photograph = large_photograph(digit, TWO_MEGAPIXELS, random)
    yield "JPEG, 2 megapixels", write(photograph, "JPEG", quality=92)
    yield "WebP, 2 megapixels", write(photograph, "WEBP", quality=85)
    deep = np.asarray(photograph.convert("L"), np.uint16) * 257
    yield "TIFF of 16 bits, 2 megapixels, grey", write(Image.fromarray(deep), "TIFF")
    photograph = large_photograph(digit, TWELVE_MEGAPIXELS, random)
    yield "JPEG, 12 megapixels", write(photograph, "JPEG", quality=92)
    yield "PNG, 12 megapixels", write(photograph, "PNG")


def write(picture: Image.Image, kind: str, **options: int) -> bytes:
    """The picture as a file."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def stretch_with_pillow(data: bytes, spec: ImageSpec) -> Pixels:
    """The peer: uint8[H, W] or uint8[H, W, 3]."""
    picture = Image.open(io.BytesIO(data)).convert("L" if spec.channels == 1 else "RGB")
    return np.asarray(picture.resize((spec.width, spec.height), Image.Resampling.BICUBIC))


def compare(*contenders: Callable[[], object]) -> list[list[float]]:
    """Milliseconds of CPU of one call, of each contender in each round."""
    calls = [max(1, int(MEASURED_MS / milliseconds(contender))) for contender in contenders]
    rounds = [[*map(milliseconds, contenders, calls)] for _ in range(ROUNDS)]
    return [list(times) for times in zip(*rounds, strict=True)]


def milliseconds(call: Callable[[], object], calls: int = 1) -> float:
    """Milliseconds of CPU of one call, by the mean of so many."""
    started = time.process_time()
    for _ in range(calls):
        call()
    return 1_000 * (time.process_time() - started) / calls
