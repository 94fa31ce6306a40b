"""What all readers of annotated files share: samples by number, read late and remembered, picklable for loaders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from omg_transformers.data.sources import OnError, check_index, check_on_error, iterate
from omg_transformers.plugins import heads_that_read
from omg_transformers.structures import Sample

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy as np

    from omg_transformers.labels import LabelSpace
    from omg_transformers.structures import Annotation, AnnotationPart

RecordT = TypeVar("RecordT")

# Masks as RLE are a few kilobytes per picture, and decoding a PNG again is the slowest part of reading.
_REMEMBERED = 4096


class FileSource(ABC, Generic[RecordT]):
    """Annotated pictures or clips on disk. A reader fills `records` (what must be known before a sample is opened) and
    says in `read` how one of them becomes a sample, its frames as paths.

    parts: what every annotation tells beyond outlines; an instance may set its own. is_video: samples are clips.
    name: what errors call the data set, its folder or index file. on_error: what a plain walk does with a bad sample.
    """

    parts: tuple[AnnotationPart, ...] = ()
    is_video: ClassVar[bool] = False

    def __init__(
        self, records: Sequence[RecordT], label_space: LabelSpace, *, name: str, on_error: OnError = "raise"
    ) -> None:
        check_on_error(on_error)
        self.records, self.label_space, self.name, self.on_error = records, label_space, name, on_error
        self.skipped: list[str] = []
        self._remembered = lru_cache(maxsize=_REMEMBERED)(self._read)

    @abstractmethod
    def read(self, record: RecordT) -> Sample:
        """The sample of one record, made by `make_sample`. Raises SampleError that names the file that is bad."""

    @property
    def num_samples(self) -> int:
        """Number of annotated pictures or clips."""
        return len(self.records)

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        """Names of the installed heads that these annotations serve. Kept, since looking at all plug-ins takes long."""
        return heads_that_read(self.parts, is_video=self.is_video)

    def __iter__(self) -> Iterator[Sample]:
        return iterate(self, on_error=self.on_error, skipped=self.skipped)

    def sample(self, index: int) -> Sample:
        """Sample number `index`, in the order of the files; frames stay encoded."""
        check_index(index, self.num_samples, self.name)
        return self._remembered(index)

    def make_sample(
        self, sample_id: str, frames: Sequence[Path | np.ndarray[Any, Any]], annotation: Annotation
    ) -> Sample:
        """A sample of this source."""
        return Sample(sample_id, tuple(frames), annotation, self.label_space, self.tasks)

    def _read(self, index: int) -> Sample:
        return self.read(self.records[index])

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_remembered"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._remembered = lru_cache(maxsize=_REMEMBERED)(self._read)
