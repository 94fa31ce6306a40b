"""Annotated videos on disk. Every frame is read on its own, so that a clip costs only its own frames."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from omg_transformers.data.file_source import FileSource
from omg_transformers.data.frames import frame_size
from omg_transformers.data.readers.class_maps import read_values
from omg_transformers.data.regions import encode_region, merge_stuff
from omg_transformers.data.sources import SampleError, check_index
from omg_transformers.labels import builtin_label_space
from omg_transformers.metrics.label_png import describe_folder, listed
from omg_transformers.processing.pictures import PICTURE_SUFFIXES, natural_order
from omg_transformers.structures import Annotation, Sample, Segment

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from omg_transformers.data.sources import OnError
    from omg_transformers.labels import LabelSpace
    from omg_transformers.structures import RLE

# Some tens of regions with almost a kilobyte each per frame: at most about 50 megabytes per process.
_REMEMBERED_FRAMES = 2048


@dataclass(frozen=True, slots=True)
class Video:
    """One video. truths: per frame the file that annotates it, None where nobody did.

    problem: what was found wrong while the folders were listed; told once the video is asked for.
    """

    name: str
    frames: tuple[Path, ...]
    truths: tuple[Path | None, ...]
    problem: str = ""

    @property
    def annotated(self) -> tuple[int, ...]:
        """Numbers of the annotated frames."""
        return tuple(place for place, truth in enumerate(self.truths) if truth is not None)


@dataclass(frozen=True, slots=True)
class Region:
    """What one segment covers in one frame."""

    category_id: int
    rle: RLE
    is_crowd: bool = False


@dataclass(frozen=True, slots=True)
class FrameTruth:
    """The annotation of one frame. regions: by an id that means the same segment in every frame of the video."""

    size: tuple[int, int]
    regions: dict[int, Region]
    void: RLE | None


class VideoSource(FileSource[Video]):
    """Videos on disk, one sample each. A reader lists `Video`s and says in `read_frame` what one frame shows.

    Frames that nobody annotated are void as a whole: not background. Things have the id of the files as track id.
    """

    is_video: ClassVar[bool] = True
    # Whether `annotated_frames` opens no file.
    knows_lengths: ClassVar[bool] = True

    def __init__(
        self, records: Sequence[Video], label_space: LabelSpace, *, name: str, on_error: OnError = "raise"
    ) -> None:
        super().__init__(records, label_space, name=name, on_error=on_error)
        self._truth = lru_cache(maxsize=_REMEMBERED_FRAMES)(self._read_truth)

    @abstractmethod
    def read_frame(self, video: Video, position: int, truth: Path) -> FrameTruth:
        """What frame `position` shows, which the file `truth` annotates. Raises SampleError that names a bad file."""

    def certain_classes(self, index: int) -> frozenset[int] | None:
        """Classes of which video `index` shows the annotated objects and no others; None: all."""
        del index
        return None

    def pictures(self, video: Video, positions: Sequence[int]) -> tuple[Path | np.ndarray[Any, Any], ...]:
        """The frames as they go into a sample: paths, decoded late."""
        return tuple(video.frames[position] for position in positions)

    def size(self, video: Video, position: int) -> tuple[int, int]:
        """(height, width) of a frame that nobody annotated."""
        return frame_size(video.frames[position], name=video.name)

    def read(self, record: Video) -> Sample:
        """The whole video."""
        return self.sample(self.records.index(record))

    def sample(self, index: int) -> Sample:
        """The whole video number `index`; frames stay encoded."""
        check_index(index, self.num_samples, self.name)
        return self.clip(index, range(len(self.records[index].frames)))

    def annotated_frames(self, index: int) -> tuple[int, ...]:
        """Numbers of the annotated frames of video `index`."""
        check_index(index, self.num_samples, self.name)
        return self.records[index].annotated

    def clip(self, index: int, positions: Sequence[int]) -> Sample:
        """Some frames of video number `index`, in the order of `positions`; the others are not read."""
        check_index(index, self.num_samples, self.name)
        video = self.records[index]
        annotation = self.annotation(index, positions)
        return self.make_sample(_clip_name(video, positions), self.pictures(video, positions), annotation)

    def annotation(self, index: int, positions: Sequence[int] | None = None) -> Annotation:
        """What is known about some frames of video `index`, without their pictures. positions: None for all."""
        check_index(index, self.num_samples, self.name)
        video = self.records[index]
        if video.problem:
            raise SampleError(video.problem)
        positions = range(len(video.truths)) if positions is None else positions
        _check_positions(video, positions)
        found = [self._truth(index, place) for place in positions]
        known = [truth for truth in found if truth is not None]
        size = known[0].size if known else self.size(video, positions[0])
        for place, truth in zip(positions, found, strict=True):
            if truth is not None and truth.size != size:
                raise SampleError(
                    f"{video.truths[place]}, frame {place} of {video.name}, is {truth.size[0]} high and "
                    f"{truth.size[1]} wide, another one {size[0]} and {size[1]}: all frames of a video have one size"
                )
        joined = _join(video.name, size, found, tuple(self.label_space.is_thing))
        return replace(joined, certain_classes=self.certain_classes(index))

    def _read_truth(self, index: int, position: int) -> FrameTruth | None:
        video = self.records[index]
        truth = video.truths[position]
        return None if truth is None else self.read_frame(video, position, truth)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in super().__getstate__().items() if key != "_truth"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._truth = lru_cache(maxsize=_REMEMBERED_FRAMES)(self._read_truth)


def class_agnostic_space(label_space: LabelSpace | None) -> LabelSpace:
    """The label space of objects without a class: any will do, since no segment has a place in it."""
    return builtin_label_space("davis") if label_space is None else label_space


def pair_frames(name: str, picture_folder: Path, truth_folder: Path) -> Video:
    """The video whose pictures and PNGs of the same names lie in two folders; pictures without a PNG are allowed."""
    frames, truths = picture_files(picture_folder), picture_files(truth_folder, {".png"})
    strangers = [stem for stem in truths if stem not in frames]
    problem = ""
    if not frames:
        problem = f"{picture_folder} is {describe_folder(picture_folder)}: expected the frames of the video {name}"
    elif strangers:
        problem = (
            f"{truth_folder} annotates {len(strangers)} frames that {picture_folder} does not hold "
            f"({listed(strangers)}): put the pictures there, under the same names"
        )
    return Video(name, tuple(frames.values()), tuple(truths.get(stem) for stem in frames), problem)


def picture_files(folder: Path, suffixes: Collection[str] = PICTURE_SUFFIXES) -> dict[str, Path]:
    """The visible pictures of a folder by their names without suffix, frame 2 before frame 10; {} without a folder."""
    if not folder.is_dir():
        return {}
    wanted = [path for path in folder.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith(".")]
    return {path.stem: path for path in sorted(wanted, key=natural_order)}


def names_in(path: Path) -> tuple[str, ...]:
    """The lines of a list that are not empty. Raises ValueError naming the file, also when it is empty."""
    try:
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a readable list ({error}): expected one name per line") from error
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if not names or twice:
        fault = f"names {listed(twice)} more than once" if twice else "is empty"
        raise ValueError(f"{path} {fault}: expected one name per line, each once")
    return names


def first_line(path: Path) -> str:
    """The first line of a list, for detection: "" when it cannot be read."""
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            return lines.readline(1000).strip()
    except OSError:
        return ""


def read_ids(path: Path) -> np.ndarray[Any, Any]:
    """The whole numbers (H, W) of a PNG of one channel or with a palette, in Fortran order."""
    return np.asfortranarray(read_values(path))


def values_of(ids: np.ndarray[Any, Any]) -> list[int]:
    """The values that occur in a map of ids, sorted. Of runs of pixels: sorting all of them takes much longer."""
    flat = ids.ravel(order="K")
    is_first = np.ones(len(flat), np.bool_)
    np.not_equal(flat[1:], flat[:-1], out=is_first[1:])
    return [int(value) for value in np.unique(flat[is_first])]


def regions_of(
    ids: np.ndarray[Any, Any], classes: Mapping[int, int], crowds: Collection[int] = ()
) -> dict[int, Region]:
    """The regions of the ids that have a class. ids: (H, W), in Fortran order for speed."""
    found = {}
    for value, category_id in sorted(classes.items()):
        rle = encode_region(ids == value)
        if rle is not None:
            found[value] = Region(category_id, rle, value in crowds)
    return found


def void_of(ids: np.ndarray[Any, Any], *values: int) -> RLE | None:
    """The region of ids that mean void."""
    return encode_region(np.asfortranarray(np.isin(ids, values)) if len(values) != 1 else ids == values[0])


def _check_positions(video: Video, positions: Sequence[int]) -> None:
    if not positions:
        raise SampleError(f"the video {video.name} has no frames: remove it from the list of videos")
    wrong = [place for place in positions if not 0 <= place < len(video.truths)]
    if wrong:
        raise IndexError(f"frames {wrong} of {video.name}: it has frames 0..{len(video.truths) - 1}")


def _clip_name(video: Video, positions: Sequence[int]) -> str:
    if list(positions) == list(range(len(video.frames))):
        return video.name
    stems = [video.frames[place].stem for place in positions]
    is_plain = len(set(stems)) == len(set(positions))
    return f"{video.name}/{','.join(stems if is_plain else map(str, positions))}"


def _join(
    name: str, size: tuple[int, int], frames: Sequence[FrameTruth | None], is_thing: tuple[bool, ...]
) -> Annotation:
    keys = sorted({key for frame in frames if frame is not None for key in frame.regions})
    segments = []
    for key in keys:
        regions = [None if frame is None else frame.regions.get(key) for frame in frames]
        present = [region for region in regions if region is not None]
        category_id = present[0].category_id
        if any(region.category_id != category_id for region in present):
            raise SampleError(f"id {key} of the video {name} changes its class: an id is one object through the video")
        masks = tuple(None if region is None else region.rle for region in regions)
        is_stuff = category_id >= 0 and not is_thing[category_id]
        is_crowd = any(region.is_crowd for region in present)
        segments.append(Segment(category_id, masks, -1 if is_stuff else key, is_crowd))
    whole = None if all(frame is not None for frame in frames) else encode_region(np.ones(size, np.bool_, order="F"))
    void = tuple(whole if frame is None else frame.void for frame in frames)
    return Annotation(size, is_thing, merge_stuff(segments, is_thing), void)
