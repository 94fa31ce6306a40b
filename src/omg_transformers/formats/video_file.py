"""An mp4 that grows frame by frame."""

from __future__ import annotations

from fractions import Fraction
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from omg_transformers.formats.atomic_file import PartFile

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from numpy.typing import NDArray

# Visually lossless for overlays, at a speed that segmentation never waits for.
ENCODER_OPTIONS = {"preset": "veryfast", "crf": "20"}


def import_av() -> ModuleType:
    """PyAV. ImportError names the extra that installs it."""
    try:
        return import_module("av")
    except ImportError as error:
        raise ImportError(
            "video files and cameras need PyAV: pip install 'omg-transformers[video]'; a folder of frames, and results "
            "other than an mp4, need nothing"
        ) from error


class VideoFile:
    """Writes H.264, yuv420p, which every player shows. `close` makes it playable, also after half of the work."""

    def __init__(self, path: str | Path, *, fps: float) -> None:
        if not 0 < fps <= 1000:
            raise ValueError(f"fps is {fps}: expected frames per second above 0, at most 1000")
        self._av, self._part = import_av(), PartFile(path)
        self._rate = Fraction(fps).limit_denominator(10_000)
        self._container: Any = None
        self._stream: Any = None
        self._size = (0, 0)

    def add(self, frame: NDArray[np.uint8]) -> None:
        """Append (H, W, 3). ValueError: its size is not that of the first."""
        if self._container is None:
            self._start((frame.shape[0], frame.shape[1]))
        if frame.shape != (*self._size, 3):
            raise ValueError(f"a frame has shape {frame.shape}: the video's frames are {(*self._size, 3)}")
        # yuv420p knows even sizes only.
        pixels = np.pad(frame, ((0, self._size[0] % 2), (0, self._size[1] % 2), (0, 0)), mode="edge")
        self._encode(self._av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24"))

    def close(self) -> Path | None:
        """Put the file in its place; None: there was no frame, so there is no file."""
        if self._container is None:
            return None
        try:
            self._encode(None)
            self._container.close()
            return self._part.finish()
        except BaseException:
            self._part.discard()
            raise
        finally:
            self._container = None

    def _start(self, size: tuple[int, int]) -> None:
        self._size = size
        self._container = self._av.open(str(self._part.path), "w", format="mp4")
        codec = "libx264" if "libx264" in self._av.codecs_available else "mpeg4"
        options = ENCODER_OPTIONS if codec == "libx264" else {"qscale": "3"}
        self._stream = self._container.add_stream(codec, rate=self._rate, options=options)
        self._stream.height, self._stream.width = size[0] + size[0] % 2, size[1] + size[1] % 2
        self._stream.pix_fmt = "yuv420p"

    def _encode(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)
