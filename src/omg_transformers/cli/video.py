"""Segment a video: a folder of frames, a file, or a camera; an mp4 of overlays, PNGs and JSON, written as it goes.

Everything in it is found and followed, or, with --follow, --box or --mask, the objects that are shown in the first
frame. Ctrl-C and SIGTERM end the work after the frame at hand; what is written then is complete up to there.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omg_transformers.cli import video_question
from omg_transformers.cli.video_formats import FORMATS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from omg_transformers.inference.frames import FrameReader

SUMMARY = "segment and follow through videos"
# What a folder of pictures does not say.
DEFAULT_FPS = 10.0
MAX_FPS = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The video, what to look for, and what to write."""
    parser.add_argument(
        "input", metavar="FOLDER|FILE|camera:0", help="a folder of frames, a video file, or a camera by its number"
    )
    parser.add_argument("--out", type=Path, default=Path("omg_seg_output"), help="output folder (%(default)s)")
    video_question.add_arguments(parser)
    parser.add_argument(
        "--formats",
        nargs="+",
        choices=tuple(FORMATS),
        default=["overlay"],
        metavar="FORMAT",
        help=f"what to write: {', '.join(f'{name} ({what})' for name, what in FORMATS.items())}; default overlay",
    )
    parser.add_argument("--fps", type=_read_fps, help=f"of the mp4 (the video's own; of pictures {DEFAULT_FPS:g})")
    parser.add_argument("--skip-broken", action="store_true", help="leave out frames that cannot be read, do not stop")


def run(options: argparse.Namespace) -> int:
    """Segment all frames. 1 when frames were left out; they are named."""
    from omg_transformers.cli.folders import prepare_folder
    from omg_transformers.cli.video_formats import VideoResults
    from omg_transformers.inference.frames import open_frames

    video_question.check_arguments(options)
    reader = open_frames(options.input, on_error="skip" if options.skip_broken else "raise")
    prepare_folder(options.out)
    session = video_question.open_session(options)
    label_space = getattr(session, "label_space", None)
    fps = options.fps or reader.fps or DEFAULT_FPS
    progress = _Progress(options.out)
    try:
        with (
            _Stop() as stop,
            VideoResults(options.out, reader, label_space, options.formats, fps=fps) as results,
            _Shown(reader, stop, is_read_twice=options.mode == "offline") as frames,
        ):
            # A one-way source must look like one, or it would be read a second time.
            for result in session.stream(frames if reader.is_repeatable else iter(frames)):
                results.add(result)
                progress.count += 1
                stop.check()
    except KeyboardInterrupt:
        print(f"omg-seg: stopped by {stop.name}: {progress.text}", file=sys.stderr)
        return 128 + stop.number
    except Exception as error:
        error.add_note(f"Until then: {progress.text}.")
        raise
    print(progress.text)
    for line in reader.skipped:
        print(f"left out: {line}", file=sys.stderr)
    return 1 if reader.skipped else 0


class _Progress:
    """How many frames were written, since when, and where to."""

    def __init__(self, folder: Path) -> None:
        self.count, self._folder, self._started = 0, folder, time.perf_counter()

    @property
    def text(self) -> str:
        if not self.count:
            return f"no frame was answered, nothing was written to {self._folder}"
        speed = self.count / (time.perf_counter() - self._started)
        return f"{self.count} frames, {speed:.1f} per second, at most {memory_text()}: {self._folder}"


def _read_fps(text: str) -> float:
    value = float(text)
    if not 0 < value <= MAX_FPS:
        raise argparse.ArgumentTypeError(f"{text}: expected frames per second above 0, at most {MAX_FPS}")
    return value


class _Shown:
    """The frames of a reader, with a bar that shows how fast they are read and what memory the process needed."""

    def __init__(self, reader: FrameReader, stop: _Stop, *, is_read_twice: bool) -> None:
        from tqdm import tqdm

        total = None if reader.num_frames is None else reader.num_frames * (1 + is_read_twice)
        self._reader, self._stop, self._bar = reader, stop, tqdm(total=total, unit="frame")

    def __iter__(self) -> Iterator[Any]:
        for frame in self._reader:
            self._stop.check()
            yield frame
            self._bar.set_postfix_str(memory_text(), refresh=False)
            self._bar.update()

    def __enter__(self) -> _Shown:
        return self

    def __exit__(self, *reason: object) -> None:
        self._stop.has_ended = True
        self._bar.close()


class _Stop:
    """Ctrl-C and SIGTERM are heard between two frames, so that no file is left in the middle of one. A second one acts
    at once; when the work `has_ended` none is heard any more, so that the files are completed.
    """

    def __init__(self) -> None:
        self.number = 0
        self.has_ended = False

    def __enter__(self) -> _Stop:
        self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *reason: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def name(self) -> str:
        return "Ctrl-C" if self.number == signal.SIGINT else signal.Signals(self.number).name

    def check(self) -> None:
        if self.number:
            self._end()

    def _end(self) -> None:
        self.has_ended = True
        raise KeyboardInterrupt

    def _ask(self, number: int, frame: object) -> None:
        del frame
        if self.has_ended:
            return
        is_second, self.number = bool(self.number), number
        if is_second:
            self._end()


def memory_text() -> str:
    """The most memory this process has had, and a GPU's."""
    texts = []
    with suppress(ImportError):  # not on Windows
        import resource

        unit = 2**20 if sys.platform == "darwin" else 2**10
        texts.append(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 2**10 // unit / 2**10:.0f} MiB")
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        texts.append(f"{torch.cuda.max_memory_allocated() / 2**20:.0f} MiB on the GPU")
    return " and ".join(texts) or "unknown memory"
