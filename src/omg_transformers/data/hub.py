"""To and from `datasets`: a source as a sharded IterableDataset of rows, and any stream of samples as a source."""

from __future__ import annotations

import io
import itertools
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from omg_transformers.data.sources import OnError, SampleError, check_index, check_on_error
from omg_transformers.structures import Annotation, Sample, Segment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from datasets import IterableDataset

    from omg_transformers.data.sources import SampleSource
    from omg_transformers.labels import LabelSpace
    from omg_transformers.structures import RLE

# A bad sample makes a reader of a stream step back by a few samples at most.
_REMEMBERED = 64


def as_iterable_dataset(source: SampleSource, *, num_shards: int = 8, on_error: OnError = "raise") -> IterableDataset:
    """The source as a streaming dataset of plain rows; `sample_from_row` turns a row into a Sample again.

    Frames stay encoded, masks stay RLE. `state_dict` of the result resumes exactly as long as it is not shuffled with a
    buffer. num_shards: pieces that ranks and loader workers share out; a multiple of ranks times workers.
    """
    from datasets import IterableDataset

    check_on_error(on_error)
    if num_shards < 1:
        raise ValueError(f"num_shards is {num_shards}: expected at least 1")
    shards: list[tuple[int, int | None, int]]
    if source.num_samples is None:
        shards = [(first, None, num_shards) for first in range(num_shards)]
    else:
        edges = [source.num_samples * number // num_shards for number in range(num_shards + 1)]
        shards = [(first, end, 1) for first, end in itertools.pairwise(edges) if end > first]
    kwargs = {"shards": shards, "source": source, "on_error": on_error}
    return IterableDataset.from_generator(_rows, gen_kwargs=kwargs)


def sample_from_row(row: dict[str, Any], label_space: LabelSpace) -> Sample:
    """The Sample of a row of `as_iterable_dataset`."""
    size = (int(row["size"][0]), int(row["size"][1]))
    return Sample(
        sample_id=row["sample_id"],
        frames=tuple(Path(frame["path"]) if frame["bytes"] is None else frame["bytes"] for frame in row["frames"]),
        annotation=Annotation(
            size=size,
            is_thing=label_space.is_thing,
            segments=tuple(
                Segment(
                    segment["category_id"],
                    tuple(_rle(counts, size) for counts in segment["masks"]),
                    segment["track_id"],
                    segment["is_crowd"],
                )
                for segment in row["segments"]
            ),
            void=tuple(_rle(counts, size) for counts in row["void"]),
            certain_classes=None if (certain := row.get("certain_classes")) is None else frozenset(certain),
        ),
        label_space=label_space,
        tasks=tuple(row["tasks"]),
    )


class StreamedSource:
    """Any re-readable stream of samples (of unknown length) as a source that is read in rising order.

    open_stream: gives the samples from the start, in the same order each time; it is opened again at the end. Reaching
    sample n costs reading what lies before it: resume skips ahead, and every rank and worker reads the whole stream.
    """

    num_samples = None

    def __init__(
        self, open_stream: Callable[[], Iterable[Sample]], label_space: LabelSpace, tasks: tuple[str, ...]
    ) -> None:
        self.open_stream, self.label_space, self.tasks = open_stream, label_space, tasks
        self._iterator: Iterator[Sample] | None = None
        self._next = 0
        self._recent: deque[tuple[int, Sample]] = deque(maxlen=_REMEMBERED)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_iterator": None, "_next": 0, "_recent": deque(maxlen=_REMEMBERED)}

    def sample(self, index: int) -> Sample:
        """Sample number `index`, counted through all passes."""
        check_index(index, None, "the stream")
        if index < self._next:
            for number, sample in self._recent:
                if number == index:
                    return sample
            self._iterator, self._next = None, 0
        while True:
            sample = self._read()
            self._recent.append((self._next, sample))
            self._next += 1
            if self._next > index:
                return sample

    def _read(self) -> Sample:
        for _ in range(2):
            if self._iterator is None:
                self._iterator = iter(self.open_stream())
            for sample in self._iterator:
                return sample
            self._iterator = None
        raise ValueError("open_stream gave no sample: a stream needs at least one")


def _rows(
    shards: list[tuple[int, int | None, int]], source: SampleSource, on_error: OnError
) -> Iterator[dict[str, Any]]:
    for first, end, step in shards:
        for index in itertools.count(first, step) if end is None else range(first, end, step):
            try:
                yield _row(source.sample(index))
            except SampleError:
                if on_error == "raise":
                    raise


def _row(sample: Sample) -> dict[str, Any]:
    annotation = sample.annotation
    return {
        "sample_id": sample.sample_id,
        "tasks": list(sample.tasks),
        "size": list(annotation.size),
        "frames": [_encoded(frame) for frame in sample.frames],
        "segments": [
            {
                "category_id": segment.category_id,
                "track_id": segment.track_id,
                "is_crowd": segment.is_crowd,
                "masks": [_counts(rle) for rle in segment.masks],
            }
            for segment in annotation.segments
        ],
        "void": [_counts(rle) for rle in annotation.void],
        "certain_classes": None if annotation.certain_classes is None else sorted(annotation.certain_classes),
    }


def _encoded(frame: bytes | Path | np.ndarray[Any, Any]) -> dict[str, Any]:
    if isinstance(frame, Path):
        return {"path": str(frame), "bytes": None}
    if isinstance(frame, bytes):
        return {"path": None, "bytes": frame}
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, format="PNG")
    return {"path": None, "bytes": buffer.getvalue()}


def _counts(rle: RLE | None) -> str | None:
    return None if rle is None else rle["counts"].decode("ascii")


def _rle(counts: str | None, size: tuple[int, int]) -> RLE | None:
    return None if counts is None else {"size": list(size), "counts": counts.encode("ascii")}
