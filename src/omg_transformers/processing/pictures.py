"""Pictures in any form a user may hold, turned into one: (H, W, 3) uint8 RGB arrays."""

from __future__ import annotations

import io
import os
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

# Pillow's own warning limit: a grey file of a few kilobytes can unpack to more memory than the machine has.
DEFAULT_MAX_PIXELS = 89_478_485
PICTURE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".jp2"}
)

Pixels = NDArray[np.uint8]


class PictureNotFoundError(FileNotFoundError, ValueError):
    """There is no picture at this path."""


def natural_order(path: Path) -> tuple[list[tuple[bool, int, str]], str]:
    """A key that sorts frame 2 before frame 10."""
    parts = re.findall(r"\d+|\D+", path.name)
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts], path.name


def read_picture(source: Any, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Pixels:
    """Read one picture as (H, W, 3) uint8 RGB, turned upright as its EXIF orientation says.

    source: a path, encoded bytes, an open binary file, a PIL image, or an array or tensor of shape (H, W),
    (H, W, 1|3|4) or (1|3|4, H, W). Where both readings fit, arrays are taken as (H, W, C), tensors as
    (C, H, W). Integers are 0..255 (uint16: 0..65535), floats 0..1. Transparent pixels are shown on white; of an
    animation, the first frame.
    ValueError names the source when it is missing, empty, truncated, no picture, not finite, or above `max_pixels`.
    """
    if _is_tensor(source):
        return _from_array(_array_of_tensor(source), "tensor", max_pixels, prefers_channels_first=True)
    if isinstance(source, np.ndarray):
        return _from_array(source, "array", max_pixels, prefers_channels_first=False)
    if isinstance(source, Image.Image):
        return _from_image(source, f"PIL image (mode {source.mode}, {source.width} x {source.height})", max_pixels)
    if isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
        return _from_file(io.BytesIO(data), f"the {len(data)} bytes given", len(data), max_pixels)
    if isinstance(source, (str, os.PathLike)):
        return _from_path(os.fspath(source), max_pixels)
    if hasattr(source, "read") and hasattr(source, "seek"):
        return _from_file(source, f"the open file {getattr(source, 'name', '')!s}".rstrip(), None, max_pixels)
    raise TypeError(
        f"a picture is of type {type(source).__name__}: give a path, bytes, a PIL image, an array or a tensor"
    )


def check_pixel_count(size: tuple[int, int], max_pixels: int, name: str) -> None:
    """Refuse a picture of `size` (height, width) above the limit, before it is decoded."""
    if size[0] * size[1] > max_pixels:
        raise ValueError(
            f"{name} is {size[1]} x {size[0]} = {size[0] * size[1]:,} pixels, above the limit of {max_pixels:,} "
            f"(max_pixels). If you trust it, pass max_pixels={size[0] * size[1]} or more; else make it smaller first."
        )


def _is_tensor(source: Any) -> bool:
    # Whoever holds a tensor has imported torch; reading files must not need it.
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.Tensor)


def _array_of_tensor(tensor: Any) -> NDArray[Any]:
    tensor = tensor.detach().cpu()
    # numpy knows no bfloat16.
    return np.asarray(tensor.float().numpy() if tensor.is_floating_point() else tensor.numpy())


def _from_path(path: str | bytes, max_pixels: int) -> Pixels:
    text = os.fsdecode(path)
    if "://" in text or text.startswith("data:"):
        raise ValueError(f"{text[:200]!r} is a URL: download it first and pass the file's path or its bytes")
    file = Path(text).expanduser()
    if not file.exists():
        raise PictureNotFoundError(f"there is no picture at {text!r}: check the path (it is relative to {Path.cwd()})")
    if file.is_dir():
        raise ValueError(f"{text!r} is a folder: pass the pictures in it one by one, or as a list")
    try:
        with file.open("rb") as stream:
            return _from_file(stream, repr(text), file.stat().st_size, max_pixels)
    except PermissionError as error:
        raise ValueError(f"{text!r} cannot be read ({error.strerror}): check the file's permissions") from error


def _from_file(stream: Any, name: str, num_bytes: int | None, max_pixels: int) -> Pixels:
    if num_bytes == 0:
        raise ValueError(f"{name}: the file is empty (0 bytes); fetch or export the picture again")
    try:
        image = Image.open(stream)
    except UnidentifiedImageError as error:
        raise ValueError(f"{name} is not a picture that Pillow can read: expected JPEG, PNG, WebP, TIFF ...") from error
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{name} is above the pixel limit ({error}). If you trust it, raise PIL.Image.MAX_IMAGE_PIXELS "
            "and pass a larger max_pixels."
        ) from error
    except Exception as error:  # Pillow's decoders raise almost anything on a damaged file
        raise _damaged(name, error) from error
    with image:
        return _from_image(image, name, max_pixels)


def _from_image(image: Image.Image, name: str, max_pixels: int) -> Pixels:
    check_pixel_count((image.height, image.width), max_pixels, name)
    if min(image.size) < 1:
        raise ValueError(f"{name} has no pixels (width x height = {image.width} x {image.height})")
    try:
        image.load()
    except Exception as error:  # as above
        raise _damaged(name, error) from error
    image = _upright(image, name)
    if image.mode.startswith("I") or image.mode == "F":
        return _from_array(np.asarray(image), name, max_pixels, prefers_channels_first=False, is_deep=True)
    return _from_array(np.array(_eight_bit(image, name)), name, max_pixels, prefers_channels_first=False)


def _damaged(name: str, error: Exception) -> ValueError:
    return ValueError(f"{name} is damaged or truncated ({error}): fetch or export the picture again")


def _eight_bit(image: Image.Image, name: str) -> Image.Image:
    has_alpha = image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info
    try:
        return image.convert("RGBA" if has_alpha else "RGB")
    except ValueError as error:
        raise ValueError(
            f"{name} has colour mode {image.mode}, which Pillow cannot turn into RGB: export it as RGB"
        ) from error


def _upright(image: Image.Image, name: str) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception as error:  # noqa: BLE001 a damaged EXIF block is no reason to refuse good pixels
        warnings.warn(f"{name}: its EXIF data is damaged ({error}); the picture is not turned", stacklevel=2)
        return image


def _from_array(
    array: NDArray[Any], name: str, max_pixels: int, *, prefers_channels_first: bool, is_deep: bool = False
) -> Pixels:
    name = f"{name} of shape {array.shape}" if name in ("array", "tensor") else name
    array = _channels_last(array, name, prefers_channels_first)
    check_pixel_count((array.shape[0], array.shape[1]), max_pixels, name)
    if array.size == 0:
        raise ValueError(f"{name} has no pixels")
    pixels = _to_uint8(array, name, is_deep)
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    if pixels.shape[2] == 4:
        alpha = pixels[..., 3:].astype(np.uint16)
        blended = (pixels[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255
        return blended.astype(np.uint8)
    pixels = np.ascontiguousarray(pixels)
    return pixels if pixels.flags.writeable else pixels.copy()


def _channels_last(array: NDArray[Any], name: str, prefers_channels_first: bool) -> NDArray[Any]:
    if array.ndim == 2:
        return array[..., None]
    if array.ndim == 4:
        raise ValueError(f"{name} is a batch or a clip: pass a list of single pictures, or use videos=")
    if array.ndim != 3:
        raise ValueError(f"{name} has {array.ndim} axes: a picture is (H, W), (H, W, 3) or (3, H, W)")
    fits_first, fits_last = array.shape[0] in (1, 3, 4), array.shape[2] in (1, 3, 4)
    if not fits_first and not fits_last:
        raise ValueError(f"{name} has no axis of 1, 3 or 4 channels: a picture is (H, W), (H, W, 3) or (3, H, W)")
    if fits_first and (prefers_channels_first or not fits_last):
        return np.moveaxis(array, 0, 2)
    return array


def _to_uint8(array: NDArray[Any], name: str, is_deep: bool) -> Pixels:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if np.issubdtype(array.dtype, np.integer):
        limit = 65535 if is_deep or array.dtype == np.uint16 else 255
        _check_range(array, name, limit)
        return np.round(array / np.float32(limit / 255)).astype(np.uint8) if limit == 65535 else array.astype(np.uint8)
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all():
            count = int((~np.isfinite(array)).sum())
            raise ValueError(f"{name} holds {count} values that are NaN or infinite: replace them before segmenting")
        _check_range(array, name, 1)
        return np.round(array * np.float32(255)).astype(np.uint8)
    raise TypeError(f"{name} holds {array.dtype}: expected uint8, uint16, or floats in 0..1")


def _check_range(array: NDArray[Any], name: str, limit: int) -> None:
    low, high = array.min(), array.max()
    if low < 0 or high > limit:
        kind = "0..1 for floats" if limit == 1 else f"0..{limit} for {array.dtype}"
        hint = " Divide by 255, or pass uint8." if limit == 1 and low >= 0 and high <= 255 else ""
        raise ValueError(
            f"{name} holds values from {low:.6g} to {high:.6g}: expected {kind}.{hint} "
            "Pass pixels as they were before any normalisation."
        )
