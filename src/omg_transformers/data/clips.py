"""Short clips of videos, frames of videos as pictures, and clips made from pictures."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from omg_transformers.data.readers.videos import VideoSource
from omg_transformers.data.regions import replace_masks
from omg_transformers.data.sources import SampleError, ShuffledOrder, check_index, iterate
from omg_transformers.metrics.label_png import listed
from omg_transformers.plugins import heads_that_read, load_head
from omg_transformers.structures import Annotation, Sample, Segment

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from omg_transformers.data.sources import SampleSource
    from omg_transformers.labels import LabelSpace
    from omg_transformers.structures import AnnotationPart


class ClipSource:
    """Endless clips; number `index` is a pure function of the source, `seed` and `index`.

    source: videos. Each pass takes every video once, in a new order, and of each `num_frames` frames from a new random
    start on, every `interval`-th; frames count among the annotated ones. A video too short for the interval gets the
    largest that fits; one with fewer than `num_frames` annotated frames is left out and named in `too_short`.
    Only these frames are read, except where the source is no VideoSource: then each video is read as a whole.
    """

    num_samples = None

    def __init__(self, source: SampleSource, *, num_frames: int = 2, interval: int = 2, seed: int = 0) -> None:
        if num_frames < 2:
            raise ValueError(f"num_frames is {num_frames}: expected at least 2; for single frames use FramesSource")
        if interval < 1:
            raise ValueError(f"interval is {interval}: expected 1 (frames in a row) or more")
        if seed < 0:
            raise ValueError(f"seed is {seed}: expected 0 or more")
        _require_videos(source, "clips")
        self.source, self.num_frames, self.interval, self.seed = source, num_frames, interval, seed
        self._places: Sequence[int] | None = None
        self._order: ShuffledOrder | None = None
        self.too_short: tuple[str, ...] = ()
        if source.num_samples is not None:
            self._places, self.too_short = _long_enough(source, source.num_samples, num_frames)
            if not self._places:
                raise ValueError(
                    f"none of {source.num_samples} videos has {num_frames} annotated frames: {listed(self.too_short)}. "
                    "Lower num_frames, or take single frames as pictures (FramesSource)"
                )
            self._order = ShuffledOrder(len(self._places), (seed, 7010))

    @property
    def label_space(self) -> LabelSpace:
        """As the source."""
        return self.source.label_space

    @property
    def tasks(self) -> tuple[str, ...]:
        """As the source."""
        return self.source.tasks

    def __iter__(self) -> Iterator[Sample]:
        return iterate(self)

    def sample(self, index: int) -> Sample:
        """Clip number `index`."""
        check_index(index, None, "clips")
        place = index if self._order is None or self._places is None else self._places[self._order[index]]
        rng = np.random.default_rng([self.seed, 7011, index])
        if isinstance(self.source, VideoSource):
            frames: Sequence[int] = self.source.annotated_frames(place)
            if self.source.records[place].problem:
                raise SampleError(self.source.records[place].problem)
            return self.source.clip(place, self._draw(frames, self.source.records[place].name, rng))
        whole = self.source.sample(place)
        return take_frames(whole, self._draw(range(len(whole.frames)), whole.sample_id, rng))

    def _draw(self, frames: Sequence[int], name: str, rng: np.random.Generator) -> list[int]:
        if len(frames) < self.num_frames:
            raise SampleError(f"{name} has {len(frames)} annotated frames, a clip needs {self.num_frames}")
        interval = min(self.interval, (len(frames) - 1) // (self.num_frames - 1))
        start = int(rng.integers(len(frames) - interval * (self.num_frames - 1)))
        return [frames[start + number * interval] for number in range(self.num_frames)]


class FramesSource:
    """The annotated frames of a source of videos as pictures, in order; classes, objects and void are the same.

    every: of each video the first annotated frame and every `every`-th after it. The tasks are those of pictures with
    such annotations. Of SA-V every file is opened once to count its frames.
    """

    def __init__(self, source: SampleSource, *, every: int = 1) -> None:
        if every < 1:
            raise ValueError(f"every is {every}: expected 1 (each annotated frame) or more")
        if not isinstance(source, VideoSource):
            raise ValueError(
                f"{type(source).__name__} does not read videos from files frame by frame: give a reader of videos, and "
                "map or compose its frames afterwards"
            )
        self.source, self.every = source, every
        self.parts: tuple[AnnotationPart, ...] = tuple(part for part in source.parts if part != "tracks")
        counts = [-(-len(source.annotated_frames(index)) // every) for index in range(source.num_samples)]
        self._ends = list(accumulate(counts))

    @property
    def num_samples(self) -> int:
        """Frames of all videos together."""
        return self._ends[-1] if self._ends else 0

    @property
    def label_space(self) -> LabelSpace:
        """As the source."""
        return self.source.label_space

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        """Names of the installed heads for pictures that these annotations serve."""
        return heads_that_read(self.parts, is_video=False)

    def __iter__(self) -> Iterator[Sample]:
        return iterate(self)

    def sample(self, index: int) -> Sample:
        """Frame number `index`."""
        check_index(index, self.num_samples, f"frames of {self.source.name}")
        video = bisect_right(self._ends, index)
        place = index - (self._ends[video - 1] if video else 0)
        frame = self.source.annotated_frames(video)[place * self.every]
        return replace(self.source.clip(video, [frame]), tasks=self.tasks)


class PseudoClips:
    """Clips from annotated pictures: every frame is the same picture, every object keeps its track.

    The motion comes from a transform that gives each frame its own window, TrainTransform(shares_window=False).
    source: pictures, also composed ones. Objects without a track id of their own are numbered from 1.
    """

    def __init__(self, source: SampleSource, *, num_frames: int = 2) -> None:
        if num_frames < 2:
            raise ValueError(f"num_frames is {num_frames}: expected at least 2")
        clips = [task for task in source.tasks if load_head(task).spec.is_video]
        if clips:
            raise ValueError(f"the source serves {listed(clips)}, it holds clips already: pseudo clips need pictures")
        self.source, self.num_frames = source, num_frames
        self.parts: tuple[AnnotationPart, ...] = (*annotation_parts(source), "tracks")
        self.tasks = heads_that_read(self.parts, is_video=True)

    @property
    def num_samples(self) -> int | None:
        """As the source."""
        return self.source.num_samples

    @property
    def label_space(self) -> LabelSpace:
        """As the source."""
        return self.source.label_space

    def __iter__(self) -> Iterator[Sample]:
        return iterate(self)

    def sample(self, index: int) -> Sample:
        """Picture number `index` as a clip."""
        sample = self.source.sample(index)
        if len(sample.frames) != 1:
            raise SampleError(f"{sample.sample_id} has {len(sample.frames)} frames: pseudo clips need pictures")
        annotation = sample.annotation
        clip = replace(
            annotation,
            segments=tuple(
                replace_masks(segment, segment.masks * self.num_frames) for segment in _numbered(annotation)
            ),
            void=annotation.void * self.num_frames,
        )
        return replace(sample, frames=sample.frames * self.num_frames, annotation=clip, tasks=self.tasks)


def take_frames(sample: Sample, positions: Sequence[int]) -> Sample:
    """Some frames of a clip, in the order of `positions`; segments that none of them shows are dropped."""
    annotation = sample.annotation
    wrong = [place for place in positions if not 0 <= place < annotation.num_frames]
    if wrong or not positions:
        raise IndexError(
            f"frames {list(positions)} of {sample.sample_id}: it has frames 0..{annotation.num_frames - 1}"
        )
    chosen = (
        replace_masks(segment, tuple(segment.masks[place] for place in positions)) for segment in annotation.segments
    )
    return replace(
        sample,
        sample_id=f"{sample.sample_id}/{','.join(map(str, positions))}",
        frames=tuple(sample.frames[place] for place in positions),
        annotation=replace(
            annotation,
            segments=tuple(segment for segment in chosen if any(rle is not None for rle in segment.masks)),
            void=tuple(annotation.void[place] for place in positions),
        ),
    )


def annotation_parts(source: SampleSource) -> tuple[AnnotationPart, ...]:
    """What the annotations of a source tell: as it says itself, else what the heads that it serves read."""
    stated: tuple[AnnotationPart, ...] | None = getattr(source, "parts", None)
    if stated is not None:
        return stated
    return tuple(sorted({part for task in source.tasks for part in load_head(task).spec.reads}))


def _require_videos(source: SampleSource, purpose: str) -> None:
    pictures = [task for task in source.tasks if not load_head(task).spec.is_video]
    if pictures:
        raise ValueError(
            f"the source serves {listed(pictures)}, it holds pictures: {purpose} need videos (PseudoClips makes clips "
            "from pictures)"
        )


def _long_enough(source: SampleSource, num_videos: int, num_frames: int) -> tuple[Sequence[int], tuple[str, ...]]:
    """Numbers of the usable videos, and names of those that are too short. Bad ones stay: they are errors."""
    if not isinstance(source, VideoSource) or not source.knows_lengths:
        return range(num_videos), ()
    usable, short = [], []
    for index, video in enumerate(source.records):
        if video.problem or len(video.annotated) >= num_frames:
            usable.append(index)
        else:
            short.append(video.name)
    return usable, tuple(short)


def _numbered(annotation: Annotation) -> list[Segment]:
    """The segments, the objects among them with ids above 0 that are all different; stuff has none."""
    is_stuff = [
        segment.category_id >= 0 and not annotation.is_thing[segment.category_id] for segment in annotation.segments
    ]
    objects = [segment.track_id for segment, stuff in zip(annotation.segments, is_stuff, strict=True) if not stuff]
    keeps = len(set(objects)) == len(objects) and all(number > 0 for number in objects)
    numbers = iter(objects if keeps else range(1, len(objects) + 1))
    return [
        replace(segment, track_id=-1 if stuff else next(numbers))
        for segment, stuff in zip(annotation.segments, is_stuff, strict=True)
    ]
