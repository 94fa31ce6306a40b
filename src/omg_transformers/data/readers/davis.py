"""Readers of DAVIS 2017 and of YouTube-VOS: objects followed through videos, as PNGs whose values are objects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from omg_transformers.data.readers.layout import Layout
from omg_transformers.data.readers.pairs import has_files, subfolders
from omg_transformers.data.readers.videos import (
    FrameTruth,
    Video,
    VideoSource,
    class_agnostic_space,
    names_in,
    pair_frames,
    read_ids,
    regions_of,
    values_of,
    void_of,
)
from omg_transformers.metrics.label_png import describe_folder

if TYPE_CHECKING:
    from omg_transformers.data.sources import OnError
    from omg_transformers.labels import LabelSpace

PICTURES, ANNOTATIONS = "JPEGImages", "Annotations"
RESOLUTIONS = ("480p", "Full-Resolution", "1080p")
# The split of a folder that names none.
ALL = "all"
VOID = 255


class ObjectVideoSource(VideoSource):
    """Videos with objects that have no class; what is no object may be anything, so only tracks are told."""

    parts = ("tracks",)

    def certain_classes(self, index: int) -> frozenset[int]:
        """None: only chosen objects are annotated."""
        del index
        return frozenset()

    def read_frame(self, video: Video, position: int, truth: Path) -> FrameTruth:
        """The objects of one frame: 0 is background, 255 void."""
        del video, position
        ids = read_ids(truth)
        objects = {value: -1 for value in values_of(ids) if value not in (0, VOID)}
        size = (ids.shape[0], ids.shape[1])
        return FrameTruth(size, regions_of(ids, objects), void_of(ids, VOID))


def read_davis(
    root: str | Path,
    split: str = "train",
    *,
    label_space: LabelSpace | None = None,
    on_error: OnError = "raise",
    resolution: str | None = None,
) -> ObjectVideoSource:
    """Videos `root/JPEGImages/480p/VIDEO/*.jpg` with `root/Annotations/480p/VIDEO/*.png`, objects without a class.

    split: a list `root/ImageSets/2017/SPLIT.txt`, or "all" without such lists. resolution: folder of the frames, by
    default the one that is there. Frames without a PNG (all but the first in some splits) are void as a whole.
    """
    root = Path(root)
    folder = resolution or _resolution(root)
    if folder is None or not (root / PICTURES / folder).is_dir():
        place = root / PICTURES
        raise ValueError(
            f"{place} is {describe_folder(place)}: expected DAVIS's frames in {' or '.join(RESOLUTIONS)}; "
            "name another folder with the option resolution"
        )
    pictures, truths = root / PICTURES / folder, root / ANNOTATIONS / folder
    names = _videos(truths) if split == ALL else names_in(root / "ImageSets" / "2017" / f"{split}.txt")
    return _open(pictures, truths, names, label_space, on_error)


def read_youtube_vos(
    root: str | Path, split: str = "train", *, label_space: LabelSpace | None = None, on_error: OnError = "raise"
) -> ObjectVideoSource:
    """Videos `root/SPLIT/JPEGImages/VIDEO/*.jpg` with `root/SPLIT/Annotations/VIDEO/*.png`, objects without a class.

    split: "all" for folders directly in `root`. Also the form of MOSE, LVOS and of VSPW's clips for object tracking.
    """
    folder = Path(root) if split == ALL else Path(root) / split
    return _open(folder / PICTURES, folder / ANNOTATIONS, _videos(folder / ANNOTATIONS), label_space, on_error)


def find_davis_splits(root: Path) -> tuple[str, ...]:
    """The lists in ImageSets/2017, "all" where frames and annotations have none."""
    if _resolution(root) is None:
        return ()
    lists = sorted(path.stem for path in (root / "ImageSets" / "2017").glob("*.txt"))
    return tuple(lists) or (ALL,)


def find_youtube_vos_splits(root: Path) -> tuple[str, ...]:
    """Folders with JPEGImages/VIDEO and Annotations/VIDEO, "all" for the root itself."""
    if _has_videos(root):
        return (ALL,)
    return tuple(folder.name for folder in subfolders(root) if _has_videos(folder))


def _open(
    pictures: Path, truths: Path, names: tuple[str, ...], label_space: LabelSpace | None, on_error: OnError
) -> ObjectVideoSource:
    if not names:
        raise ValueError(f"{truths} is {describe_folder(truths)}: expected one folder of PNGs per video")
    videos = [pair_frames(name, pictures / name, truths / name) for name in names]
    return ObjectVideoSource(videos, class_agnostic_space(label_space), name=str(truths), on_error=on_error)


def _resolution(root: Path) -> str | None:
    for name in RESOLUTIONS:
        if (root / PICTURES / name).is_dir() and subfolders(root / ANNOTATIONS / name):
            return name
    return None


def _has_videos(folder: Path) -> bool:
    # The first tell: a folder of a data set may hold thousands.
    videos = subfolders(folder / ANNOTATIONS)[:3]
    return any(has_files(video, ".png") and (folder / PICTURES / video.name).is_dir() for video in videos)


def _videos(folder: Path) -> tuple[str, ...]:
    return tuple(video.name for video in subfolders(folder))


DAVIS = Layout("davis", "DAVIS 2017", find_davis_splits, read_davis)
YOUTUBE_VOS = Layout("youtube_vos", "YouTube-VOS", find_youtube_vos_splits, read_youtube_vos)
