"""How long a video file says it is, from its outermost boxes: tells one that was cut off, whatever is inside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import BinaryIO

# What stands side by side in an MP4 or QuickTime file; anything else behind them is not part of it.
BOXES = frozenset(b"ftyp styp sidx moov moof mdat mfra free skip wide uuid meta udta pnot prft emsg".split())
EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def announced_bytes(path: str | Path) -> int | None:
    """Bytes that an MP4, QuickTime, Matroska, WebM or AVI file should have; None where it does not say.

    It may be less than the file has: what follows the end is of no concern.
    """
    with Path(path).open("rb") as file:
        head = file.read(12)
        if head[:4] == EBML:
            return _end_of_segment(file)
        if head[:4] == b"RIFF":
            return _end_of_chunks(file)
        return _end_of_boxes(file) if head[4:8] in BOXES else None


def _end_of_boxes(file: BinaryIO) -> int | None:
    end = 0
    while (header := _at(file, end, 16))[4:8] in BOXES:
        size = int.from_bytes(header[:4], "big")
        if size == 1:
            size = int.from_bytes(header[8:], "big")
        if size < 8:  # 0: to the end of the file, wherever that is
            return None
        end += size
    return end


def _end_of_chunks(file: BinaryIO) -> int:
    end = 0
    while (header := _at(file, end, 8))[:4] == b"RIFF":
        size = int.from_bytes(header[4:], "little")
        end += 8 + size + size % 2
    return end


def _end_of_segment(file: BinaryIO) -> int | None:
    start = 0
    for name in (EBML, SEGMENT):
        header = _at(file, start, 12)
        if header[:4] != name or not header[4:5].strip(b"\0"):
            return None
        # The place of the first one bit tells how many bytes hold the size.
        length = 9 - header[4].bit_length()
        size = int.from_bytes(header[4 : 4 + length], "big") - (1 << 7 * length)
        if size == (1 << 7 * length) - 1:  # a stream that was written without turning back
            return None
        start += 4 + length + size
    return start


def _at(file: BinaryIO, place: int, count: int) -> bytes:
    file.seek(place)
    return file.read(count)
