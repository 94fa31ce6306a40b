"""A video in any form, read one frame at a time: a folder of pictures, a file, a camera, a Python iterator."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from omg_transformers.formats.container_length import announced_bytes
from omg_transformers.formats.video_file import import_av
from omg_transformers.processing.pictures import DEFAULT_MAX_PIXELS, PICTURE_SUFFIXES, natural_order, read_picture

if TYPE_CHECKING:
    from omg_transformers.processing.pictures import Pixels

OnError = Literal["raise", "skip"]
CAMERA = re.compile(r"camera:(\d+)")


class FrameSource(Protocol):
    """Where frames come from."""

    name: str
    fps: float | None
    num_frames: int | None
    is_repeatable: bool

    def frames(self) -> Iterator[Pixels | ValueError]:
        """From the first frame on, one at a time: pixels, or what is wrong with that frame."""

    def frame_name(self, position: int) -> str:
        """Of its file, or its number."""


class FrameReader:
    """Iterates over the frames of a video as (H, W, 3) uint8 RGB arrays; only one is held at a time.

    fps, num_frames: None when not known. is_repeatable: every iteration starts at the first frame again.
    skipped: what was left out in the latest iteration, one sentence per frame.
    """

    def __init__(self, source: FrameSource, *, on_error: OnError = "raise") -> None:
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error is {on_error!r}: expected 'raise' (stop there) or 'skip' (leave the frame out)")
        self.source, self.on_error = source, on_error
        self.name, self.fps, self.num_frames = source.name, source.fps, source.num_frames
        self.is_repeatable = source.is_repeatable
        self.skipped: list[str] = []
        self._lost: list[int] = []

    def __iter__(self) -> Iterator[Pixels]:
        self.skipped, self._lost = [], []
        position = -1
        for position, frame in enumerate(self.source.frames()):
            if isinstance(frame, ValueError):
                self._refuse(position, frame)
            else:
                yield frame
        if len(self._lost) == position + 1:
            reason = f": {self.skipped[0]}" if self.skipped else ""
            raise ValueError(f"the video {self.name!r} has no frame that can be read{reason}")

    def position(self, index: int) -> int:
        """The place in the source of the frame that came as number `index` of the latest iteration."""
        position = index
        for lost in self._lost:
            position += lost <= position
        return position

    def frame_name(self, index: int) -> str:
        """The name of the frame that came as number `index` of the latest iteration: of its file, or its number."""
        return self.source.frame_name(self.position(index))

    def _refuse(self, position: int, error: ValueError) -> None:
        name = self.source.frame_name(position)
        if self.on_error == "raise":
            error.add_note(f"It is frame {name} of {self.name!r}; on_error='skip' leaves such frames out.")
            raise error
        self._lost.append(position)
        self.skipped.append(f"frame {name}: {error}")


def open_frames(source: Any, *, on_error: OnError = "raise", max_pixels: int = DEFAULT_MAX_PIXELS) -> FrameReader:
    """Open a video.

    source: a folder of pictures (in the natural order of their names: 2 before 10), one picture, a video file that
    FFmpeg reads, "camera:0", or anything that iterates over what `read_picture` takes.
    on_error: what to do at a frame that cannot be read.
    ValueError: there is no such file, it is no video, or it has no frames. ImportError names the extra that video
    files and cameras need.
    """
    if isinstance(source, FrameReader):
        return source
    if isinstance(source, (str, os.PathLike)):
        return FrameReader(_source_of_path(os.fspath(source), max_pixels), on_error=on_error)
    if isinstance(source, (bytes, bytearray)) or not isinstance(source, Iterable):
        raise TypeError(
            f"a video is of type {type(source).__name__}: give a folder, a file, 'camera:0', or an iterator of frames"
        )
    return FrameReader(_Items(source, max_pixels), on_error=on_error)


def _source_of_path(text: str, max_pixels: int) -> FrameSource:
    if camera := CAMERA.fullmatch(text):
        return _Camera(int(camera.group(1)))
    path = Path(text).expanduser()
    if not path.exists():
        raise ValueError(f"there is no video at {text!r}: give a folder of frames, a video file, or camera:0")
    if path.is_dir():
        inside = [file for file in path.iterdir() if _is_frame(file)]
        if not inside:
            raise ValueError(f"the folder {text!r} holds no frames ({', '.join(sorted(PICTURE_SUFFIXES))})")
        return _Pictures(path.resolve().name, sorted(inside, key=natural_order), max_pixels)
    if _is_frame(path) and path.suffix.lower() != ".gif":
        return _Pictures(path.stem, [path], max_pixels)
    return _Container(path, max_pixels)


def _is_frame(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".")


class _Pictures:
    fps: float | None = None
    is_repeatable = True

    def __init__(self, name: str, paths: list[Path], max_pixels: int) -> None:
        self.name = name
        self.num_frames: int | None = len(paths)
        self._paths, self._max_pixels = paths, max_pixels

    def frames(self) -> Iterator[Pixels | ValueError]:
        for path in self._paths:
            yield _picture(path, self._max_pixels)

    def frame_name(self, position: int) -> str:
        return self._paths[position].stem


class _Numbered:
    def frame_name(self, position: int) -> str:
        return f"{position:05d}"


class _Items(_Numbered):
    name = "frames"
    fps: float | None = None

    def __init__(self, items: Iterable[Any], max_pixels: int) -> None:
        self.num_frames = len(items) if isinstance(items, Sized) else None
        self.is_repeatable = iter(items) is not items
        self._items, self._max_pixels = items, max_pixels

    def frames(self) -> Iterator[Pixels | ValueError]:
        for item in self._items:
            yield _picture(item, self._max_pixels)


def _picture(item: Any, max_pixels: int) -> Pixels | ValueError:
    try:
        return read_picture(item, max_pixels=max_pixels)
    except ValueError as error:
        return error


class _Container(_Numbered):
    """A file that FFmpeg demuxes. A phone's turn is applied, as EXIF is for pictures.

    FFmpeg ends a file that was cut off as if nothing were missing: what lacks is told as one more unreadable frame.
    """

    is_repeatable = True

    def __init__(self, path: Path, max_pixels: int) -> None:
        self.name, self._path, self._max_pixels = path.stem, path, max_pixels
        with self._open() as container:
            stream = _video_stream(container, str(path))
            rate = stream.average_rate or stream.guessed_rate
            self.fps = float(rate) if rate else None
            self.num_frames = stream.frames or None

    def _open(self) -> Any:
        av = import_av()
        if self._path.stat().st_size == 0:
            raise ValueError(f"{self._path} is empty (0 bytes): fetch or export the video again")
        try:
            return av.open(str(self._path))
        except (av.FFmpegError, OSError, ValueError) as error:
            raise ValueError(
                f"{self._path} cannot be opened as a video ({error}): it is damaged, cut off, or no video"
            ) from error

    def frames(self) -> Iterator[Pixels | ValueError]:
        with self._open() as container:
            stream = _video_stream(container, str(self._path))
            stream.thread_type = "AUTO"
            yield from _decoded(container, stream, str(self._path), self._max_pixels)
        size, announced = self._path.stat().st_size, announced_bytes(self._path)
        if announced is not None and size < announced:
            yield ValueError(
                f"{self._path} is cut off: it has {size:,} of {announced:,} bytes, so that its last "
                "frames are missing. Fetch or export it again"
            )


class _Camera(_Numbered):
    num_frames: int | None = None
    is_repeatable = False

    def __init__(self, index: int) -> None:
        self.name, self.fps = f"camera{index}", None
        self._index = index
        places = {"linux": ("v4l2", f"/dev/video{index}"), "darwin": ("avfoundation", str(index))}
        if sys.platform not in places:
            raise ValueError(f"camera:{index}: cameras are known on Linux and macOS, not on {sys.platform}")
        self._format, self._place = places[sys.platform]
        with self._open() as container:
            rate = _video_stream(container, self._place).average_rate
            self.fps = float(rate) if rate else None

    def _open(self) -> Any:
        av = import_av()
        try:
            return av.open(self._place, format=self._format)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise ValueError(
                f"camera:{self._index} ({self._place}) cannot be opened ({error}): is it connected, free, and may you "
                "use it?"
            ) from error

    def frames(self) -> Iterator[Pixels | ValueError]:
        with self._open() as container:
            stream = _video_stream(container, self._place)
            yield from _decoded(container, stream, self._place, DEFAULT_MAX_PIXELS)


def _video_stream(container: Any, place: str) -> Any:
    if not container.streams.video:
        raise ValueError(f"{place} holds no video stream (only {len(container.streams)} others): is it sound only?")
    return container.streams.video[0]


def _decoded(container: Any, stream: Any, place: str, max_pixels: int) -> Iterator[Pixels | ValueError]:
    av = import_av()
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.FFmpegError as error:  # nothing can be read behind it
            yield _damage(place, error)
            return
        frames: list[Any] = []
        try:
            frames = packet.decode()
        except av.EOFError:
            continue
        except av.FFmpegError as error:
            yield _damage(place, error)
        for frame in frames:
            yield _pixels(frame, place, max_pixels)


def _damage(place: str, error: Exception) -> ValueError:
    # Not error.filename: it names a function of FFmpeg.
    return ValueError(f"{place} is damaged or cut off: {getattr(error, 'strerror', None) or error}")


def _pixels(frame: Any, place: str, max_pixels: int) -> Pixels | ValueError:
    if frame.is_corrupt:
        return ValueError(f"{place} is damaged: this frame is decoded in parts only")
    pixels = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90) % 4
    return _picture(np.rot90(pixels, turns) if turns else pixels, max_pixels)
