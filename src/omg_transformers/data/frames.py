"""Late decoding of a sample's frames."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from omg_transformers.data.sources import SampleError
from omg_transformers.processing.pictures import read_picture

if TYPE_CHECKING:
    from omg_transformers.structures import Sample


_ORIENTATION = 0x0112
_QUARTER_TURNS = (5, 6, 7, 8)


def frame_size(frame: bytes | Path | np.ndarray[Any, Any], *, name: str) -> tuple[int, int]:
    """(height, width) as stored, from the header alone. Raises SampleError naming `name` when it is no picture."""
    if isinstance(frame, np.ndarray):
        return _array_size(frame, name)
    with _open(frame, name) as picture:
        return picture.height, picture.width


def decode_frame(
    frame: bytes | Path | np.ndarray[Any, Any],
    *,
    name: str,
    expected_size: tuple[int, int],
    at_least: tuple[int, int] | None = None,
) -> Image.Image:
    """The frame as an RGB picture, as stored: an EXIF turn is not applied, since annotations are not turned either.

    at_least: (height, width) that suffices; a JPEG may then come 2, 4 or 8 times smaller, which is much faster.
    Raises SampleError when the file is broken or has not `expected_size`, the size of the annotation.
    """
    if isinstance(frame, np.ndarray):
        _check_size(_array_size(frame, name), expected_size, name)
        return Image.fromarray(frame)
    with _open(frame, name) as picture:
        _check_size((picture.height, picture.width), expected_size, name)
        try:
            if at_least is not None and picture.format == "JPEG":
                picture.draft("RGB", (at_least[1], at_least[0]))
            return _colours(picture)
        except (OSError, SyntaxError, ValueError) as error:
            raise SampleError(f"{_where(frame, name)} cannot be decoded ({error}): the file is damaged") from error


def decode_frames(sample: Sample, *, at_least: tuple[int, int] | None = None) -> list[Image.Image]:
    """All frames of a sample, see `decode_frame`."""
    return [
        decode_frame(frame, name=sample.sample_id, expected_size=sample.annotation.size, at_least=at_least)
        for frame in sample.frames
    ]


def _colours(picture: Image.Image) -> Image.Image:
    """In RGB as `read_picture` shows it: deep shades scaled to 8 bits, transparent pixels on white."""
    if picture.mode.startswith("I") or picture.mode == "F":
        values = np.asarray(picture)
        return Image.fromarray(read_picture(values if picture.mode == "F" else values.astype(np.uint16)))
    if picture.has_transparency_data:
        return Image.fromarray(read_picture(np.asarray(picture.convert("RGBA"))))
    return picture.convert("RGB")


def turn_hint(frame: bytes | Path, expected_size: tuple[Any, Any]) -> str:
    """The end of an error about sizes: that viewers turn the picture, if its annotation fits it then; else nothing."""
    with _open(frame, "the picture") as picture:
        is_turned = picture.getexif().get(_ORIENTATION, 1) in _QUARTER_TURNS
        if not is_turned or (picture.width, picture.height) != tuple(expected_size):
            return ""
    return ". Its EXIF data turns the picture, and it was annotated as turned: store it turned and without that tag"


def _open(frame: bytes | Path, name: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(frame) if isinstance(frame, bytes) else frame)
    except FileNotFoundError as error:
        raise SampleError(f"{_where(frame, name)} does not exist: put the picture there") from error
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise SampleError(f"{_where(frame, name)} is not a readable picture ({error})") from error


def _array_size(frame: np.ndarray[Any, Any], name: str) -> tuple[int, int]:
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise SampleError(f"a frame of {name} is {frame.dtype} {frame.shape}: expected uint8 (H, W, 3)")
    return int(frame.shape[0]), int(frame.shape[1])


def _check_size(size: tuple[int, int], expected_size: tuple[int, int], name: str) -> None:
    if size != tuple(expected_size):
        raise SampleError(
            f"a frame of {name} is {size[0]} high and {size[1]} wide, its annotation {expected_size[0]} and "
            f"{expected_size[1]}: they do not belong together"
        )


def _where(frame: bytes | Path, name: str) -> str:
    return f"{frame} ({name})" if isinstance(frame, Path) else f"a frame of {name}"
