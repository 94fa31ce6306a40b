"""Reader of SA-V: objects without classes, followed through videos, as JSON beside an mp4 or a folder of frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, overload

from omg_transformers.data.readers.json_files import mentions, read_sample_object
from omg_transformers.data.readers.layout import Layout
from omg_transformers.data.readers.outlines import region_of_coco
from omg_transformers.data.readers.videos import (
    FrameTruth,
    Region,
    Video,
    VideoSource,
    class_agnostic_space,
    picture_files,
)
from omg_transformers.data.sources import SampleError
from omg_transformers.formats.video_file import import_av
from omg_transformers.metrics.label_png import describe_folder

if TYPE_CHECKING:
    import numpy as np

    from omg_transformers.data.sources import OnError
    from omg_transformers.labels import LabelSpace

KINDS = ("manual", "auto")
# Videos have 24 frames per second, annotations 6.
FRAMES_PER_ANNOTATION = 4
# Files of about a megabyte; a walk or a clip needs one at a time.
_OPEN_FILES = 16


def read_sa_v(
    root: str | Path,
    split: str = "manual",
    *,
    label_space: LabelSpace | None = None,
    on_error: OnError = "raise",
    pictures: str | None = None,
) -> SaVSource:
    """Videos of `root/*_manual.json` or `root/*_auto.json` (the splits), also one folder deeper, as SA-V has them.

    The frames of a video lie in a folder of its name beside the JSON (or under `root/pictures`): all of them, or every
    fourth, which are the annotated ones; or in an mp4 of its name, which needs PyAV and is decoded from its start for
    every sample: for training, unpack the frames. Without either the annotations can be read, see `annotation`.
    """
    if split not in KINDS:
        raise ValueError(f"split is {split!r}: expected 'manual' or 'auto', the two kinds of SA-V's files")
    root = Path(root)
    paths = _files(root, split)
    if not paths:
        raise ValueError(f"{root} is {describe_folder(root)}: expected SA-V's files *_{split}.json")
    videos = _LazyVideos(paths, split, None if pictures is None else root / pictures)
    return SaVSource(videos, class_agnostic_space(label_space), name=f"{root}/*_{split}.json", on_error=on_error)


def find_splits(root: Path) -> tuple[str, ...]:
    """Kinds of files that are there."""
    return tuple(kind for kind in KINDS if any(mentions(path, '"masklet"') for path in _files(root, kind)[:1]))


class SaVSource(VideoSource):
    """Videos whose objects have no class; only the annotated frames belong to a sample. See `read_sa_v`."""

    parts = ("tracks",)
    # There are 50,000 files, and each would have to be opened.
    knows_lengths: ClassVar[bool] = False

    def certain_classes(self, index: int) -> frozenset[int]:
        """None: only chosen objects are annotated."""
        del index
        return frozenset()

    def size(self, video: Video, position: int) -> tuple[int, int]:
        """As the file says, the same for all frames."""
        del position
        content = _read(next(truth for truth in video.truths if truth is not None))
        return _whole(content["video_height"]), _whole(content["video_width"])

    def pictures(self, video: Video, positions: Sequence[int]) -> tuple[Path | np.ndarray[Any, Any], ...]:
        """Paths of the frames, or the frames of the mp4, decoded."""
        place = video.frames[0]
        if place.is_dir():
            raise SampleError(
                f"{place} holds {len(picture_files(place))} pictures, {video.truths[0]} annotates {len(video.frames)} "
                f"frames: expected all frames of the video, or every {FRAMES_PER_ANNOTATION}th"
            )
        if place.suffix == ".mp4":
            return _decode(place, [position * FRAMES_PER_ANNOTATION for position in positions], video)
        return super().pictures(video, positions)

    def read_frame(self, video: Video, position: int, truth: Path) -> FrameTruth:
        """The objects of one frame; an object that is not there has an empty mask."""
        content = _read(truth)
        size = self.size(video, position)
        masks = content["masklet"][position]
        ids = [_whole(number) for number in content["masklet_id"]]
        if not isinstance(masks, list) or len(masks) != len(ids):
            found = f"{len(masks)} masks" if isinstance(masks, list) else f"{masks!r:.40}"
            raise SampleError(f"{truth}, frame {position}: {found} for {len(ids)} objects: expected as many masks")
        regions = {}
        for number, mask in zip(ids, masks, strict=True):
            rle = region_of_coco(mask, size, where=f"{truth}, frame {position}, object {number}")
            if rle is not None:
                regions[number + 1] = Region(-1, rle)
        return FrameTruth(size, regions, None)


class _LazyVideos(Sequence[Video]):
    """The videos of the files, each opened when it is asked for."""

    def __init__(self, paths: Sequence[Path], kind: str, pictures: Path | None) -> None:
        self.paths, self.kind, self.folder = tuple(paths), kind, pictures

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> Video: ...
    @overload
    def __getitem__(self, index: slice) -> list[Video]: ...
    def __getitem__(self, index: int | slice) -> Video | list[Video]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        path = self.paths[index]
        num_frames = len(_read(path)["masklet"])
        name = path.name.removesuffix(f"_{self.kind}.json")
        folder = self.folder or path.parent
        frames = _frames(folder / name, num_frames) or (folder / f"{name}.mp4",) * num_frames
        return Video(name, frames, (path,) * num_frames)


def _frames(folder: Path, num_annotated: int) -> tuple[Path, ...]:
    """The pictures of the annotated frames; the folder itself, as often, when their number does not fit."""
    if not folder.is_dir():
        return ()
    found = tuple(picture_files(folder).values())
    if len(found) == num_annotated:
        return found
    fits = math.ceil(len(found) / FRAMES_PER_ANNOTATION) == num_annotated
    return found[::FRAMES_PER_ANNOTATION] if fits else (folder,) * num_annotated


def _decode(path: Path, wanted: Sequence[int], video: Video) -> tuple[np.ndarray[Any, Any], ...]:
    if not path.is_file():
        folder = path.with_suffix("")
        raise SampleError(
            f"the video {video.name} is not there: put {path.name} or a folder {folder.name} of its frames into "
            f"{path.parent}; the annotations alone can be read with `annotation`"
        )
    av = import_av()
    found: dict[int, np.ndarray[Any, Any]] = {}
    try:
        with av.open(str(path)) as container:
            for number, frame in enumerate(container.decode(video=0)):
                if number in wanted:
                    found[number] = frame.to_ndarray(format="rgb24")
                if number >= max(wanted):
                    break
    except (av.FFmpegError, OSError) as error:
        raise SampleError(f"{path} cannot be decoded ({error}): the file is damaged") from error
    missing = [number for number in wanted if number not in found]
    if missing:
        raise SampleError(f"{path} ends before frame {missing[0]}, which {video.truths[0]} annotates")
    return tuple(found[number] for number in wanted)


@lru_cache(maxsize=_OPEN_FILES)
def _read(path: Path) -> dict[str, Any]:
    keys = ("masklet", "masklet_id", "video_height", "video_width")
    content = read_sample_object(path, keys, title="SA-V")
    if not isinstance(content["masklet"], list) or not content["masklet"]:
        raise SampleError(f"{path} has no masklets: expected a list `masklet` with one list of masks per frame")
    numbers = content["masklet_id"]
    if (
        not isinstance(numbers, list)
        or not all(_is_whole(number) for number in numbers)
        or len(set(numbers)) < len(numbers)
    ):
        raise SampleError(f"{path} has masklet_id={numbers!r:.60}: expected a list of different whole numbers")
    wrong = [key for key in ("video_height", "video_width") if not _is_whole(content[key]) or _whole(content[key]) < 1]
    if wrong:
        raise SampleError(f"{path} has {wrong[0]}={content[wrong[0]]!r:.40}: expected a number of pixels")
    return content


def _is_whole(value: Any) -> bool:
    """Also as SA-V writes them: 848.0, or "0" in its older files."""
    if isinstance(value, str):
        return value.isdecimal()
    return not isinstance(value, bool) and isinstance(value, (int, float)) and float(value).is_integer()


def _whole(value: Any) -> int:
    return int(value)


def _files(root: Path, kind: str) -> list[Path]:
    return sorted(root.glob(f"*_{kind}.json")) or sorted(root.glob(f"*/*_{kind}.json"))


LAYOUT = Layout("sa_v", "SA-V", find_splits, read_sa_v)
