"""PNGs that the commands write, marked so that the same command may replace them."""

import os
import zlib
from pathlib import Path

from pinhole.outputs import write_whole

HEADER_BYTES = 33  # The signature and the chunk IHDR, which every PNG begins with.
# The mark is a chunk (PNG specification, 5.3 and 11.3.3.2): length, type and text, checksum.
TEXT = b"tEXtSoftware\0pinhole"
MARK = (len(TEXT) - 4).to_bytes(4) + TEXT + zlib.crc32(TEXT).to_bytes(4)


def has_mark(start: bytes) -> bool:
    """Whether a file that begins so is a PNG with the mark."""
    return start[HEADER_BYTES:].startswith(MARK)


def is_drawn(path: Path) -> bool:
    """Whether a file is a PNG that a command has written; False for one that can't be read."""
    from pinhole.jobs.sources.places import Place  # which imports from serve

    try:
        with Place(os.fspath(path)).open() as file:  # Without waiting for a pipe.
            return has_mark(file.read(HEADER_BYTES + len(MARK)))
    except OSError:
        return False


def marked(picture: bytes) -> bytes:
    """A PNG with the mark."""
    return picture[:HEADER_BYTES] + MARK + picture[HEADER_BYTES:]


def write_png(path: Path, picture: bytes) -> None:
    """Write a PNG with the mark.

    Raises:
        OSError: it can't be written.
    """
    write_whole(path, lambda file: file.write(marked(picture)))
