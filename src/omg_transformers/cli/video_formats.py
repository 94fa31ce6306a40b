"""What `omg-seg video` leaves in its output folder."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from omg_transformers.inference.frames import FrameReader
    from omg_transformers.inference.results import FrameResult
    from omg_transformers.labels import LabelSpace

FORMATS = {
    "overlay": "NAME.mp4",
    "davis": "palette PNGs of ids in davis/NAME",
    "vipseg": "panoptic PNGs in pan_pred/NAME, pred.json",
    "youtube_vis": "youtube_vis.json, the things object by object",
    "jsonl": "NAME.jsonl, RLE masks frame by frame",
}


class _Writer(Protocol):
    def add(self, result: FrameResult) -> None: ...

    def close(self) -> Any: ...


class VideoResults:
    """Writes the chosen formats frame by frame; leaving it, for whatever reason, completes the files.

    While there is no frame nothing is written, and files of an earlier run stay.
    """

    def __init__(
        self,
        folder: Path,
        reader: FrameReader,
        label_space: LabelSpace | None,
        formats: Sequence[str],
        *,
        fps: float,
    ) -> None:
        if "vipseg" in formats and label_space is None:
            raise ValueError("the format vipseg needs classes, and this task has none: choose davis, or another task")
        if "overlay" in formats:
            from omg_transformers.formats.video_file import import_av

            import_av()
        self._folder, self._reader, self._label_space, self._fps = folder, reader, label_space, fps
        self._formats = tuple(dict.fromkeys(formats))
        self._writers: list[_Writer] = []
        self._stack = ExitStack()

    def add(self, result: FrameResult) -> None:
        """Write one frame."""
        if not self._writers:
            self._start()
        for writer in self._writers:
            writer.add(result)

    def _start(self) -> None:
        if self._label_space is not None:
            from omg_transformers.formats import write_json

            write_json(self._folder / "labels.json", self._label_space.to_dict())
        for name in self._formats:
            writer = WRITERS[name](self._folder, self._reader, self._label_space, self._fps)
            self._stack.callback(writer.close)
            self._writers.append(writer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: Any) -> None:
        self._stack.__exit__(*reason)


class _Overlay:
    def __init__(self, folder: Path, reader: FrameReader, label_space: LabelSpace | None, fps: float) -> None:
        from omg_transformers.formats.video_file import VideoFile
        from omg_transformers.visualization import TrackColors

        self._file, self._label_space = VideoFile(folder / f"{reader.name}.mp4", fps=fps), label_space
        self._colors = TrackColors(label_space)

    def add(self, result: FrameResult) -> None:
        from omg_transformers.visualization import draw_overlay

        segments = result.segments
        colors = self._colors.of(segments.ids.tolist(), segments.labels.tolist())
        # No scores: they would flicker.
        overlay = draw_overlay(result.frame, segments, self._label_space, scores=False, ids=True, colors=colors)
        self._file.add(overlay)

    def close(self) -> Any:
        return self._file.close()


class _Davis:
    def __init__(self, folder: Path, reader: FrameReader, label_space: LabelSpace | None, fps: float) -> None:
        del label_space, fps
        self._folder, self._reader = folder / "davis" / reader.name, reader
        self._folder.mkdir(parents=True, exist_ok=True)

    def add(self, result: FrameResult) -> None:
        from omg_transformers.formats.davis import write_davis_png

        write_davis_png(self._folder / f"{self._reader.frame_name(result.index)}.png", result.segments)

    def close(self) -> None:
        """Each file is complete already."""


class _Vipseg:
    def __init__(self, folder: Path, reader: FrameReader, label_space: LabelSpace | None, fps: float) -> None:
        from omg_transformers.formats.vipseg import VipsegResults

        del fps
        assert label_space is not None  # checked by VideoResults
        self._results, self._reader = VipsegResults(folder, reader.name, label_space), reader

    def add(self, result: FrameResult) -> None:
        self._results.add(self._reader.frame_name(result.index), result.segments)

    def close(self) -> Any:
        return self._results.close()


class _YoutubeVis:
    def __init__(self, folder: Path, reader: FrameReader, label_space: LabelSpace | None, fps: float) -> None:
        from omg_transformers.formats.youtube_vis import YoutubeVisResults

        del fps
        self._reader = reader
        # The data set counts its videos: a video that is named by its number is that video.
        video_id = int(reader.name) if reader.name.isdecimal() else reader.name
        self._results = YoutubeVisResults(folder / "youtube_vis.json", video_id, label_space)

    def add(self, result: FrameResult) -> None:
        self._results.add(self._reader.position(result.index), result.segments)

    def close(self) -> Any:
        return self._results.close(self._reader.num_frames)


class _Lines:
    def __init__(self, folder: Path, reader: FrameReader, label_space: LabelSpace | None, fps: float) -> None:
        from omg_transformers.formats.json_lines import JsonLines

        del label_space, fps
        self._lines, self._reader = JsonLines(folder / f"{reader.name}.jsonl"), reader

    def add(self, result: FrameResult) -> None:
        from omg_transformers.formats import segments_to_dict

        index = result.index
        head = {"frame": self._reader.frame_name(index), "index": self._reader.position(index)}
        self._lines.add({**head, **segments_to_dict(result.segments)})

    def close(self) -> Any:
        return self._lines.close()


WRITERS: dict[str, Callable[..., _Writer]] = {
    "overlay": _Overlay,
    "davis": _Davis,
    "vipseg": _Vipseg,
    "youtube_vis": _YoutubeVis,
    "jsonl": _Lines,
}
