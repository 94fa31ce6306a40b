"""Reader of VSPW: videos with the class of every pixel, without objects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from omg_transformers.data.readers.classes import DatasetClasses, in_label_space, named_classes
from omg_transformers.data.readers.layout import Layout
from omg_transformers.data.readers.pairs import subfolders
from omg_transformers.data.readers.videos import (
    FrameTruth,
    Video,
    VideoSource,
    first_line,
    names_in,
    pair_frames,
    read_ids,
    regions_of,
    values_of,
    void_of,
)
from omg_transformers.data.sources import SampleError
from omg_transformers.formats.atomic_file import read_json
from omg_transformers.labels import builtin_label_space
from omg_transformers.metrics.label_png import describe_folder, listed

if TYPE_CHECKING:
    from omg_transformers.data.sources import OnError
    from omg_transformers.labels import LabelSpace

NAME_FILE = "label_num_dic_final.json"
ALL = "all"
# 0 is "others", 255 no label: both do not count in the benchmark. Its tools write 254 for 255 after counting down.
VOID = (0, 254, 255)


def read_vspw(
    root: str | Path, split: str = "train", *, label_space: LabelSpace | None = None, on_error: OnError = "raise"
) -> VspwSource:
    """Videos `root/data/VIDEO/origin/*.jpg` with `root/data/VIDEO/mask/*.png`, listed in `root/SPLIT.txt`.

    Values are classes from 1 on, as `label_num_dic_final.json` names them; without it the 124 of VIPSeg, which are the
    same. 0 and 255 are void. "all": every video. A thing class is one region per frame: objects are not told apart.
    """
    root = Path(root)
    folder = _folder(root)
    names = _videos(folder) if split == ALL else names_in(root / f"{split}.txt")
    if not names:
        raise ValueError(f"{folder} is {describe_folder(folder)}: expected folders VIDEO with origin and mask")
    videos = [pair_frames(name, folder / name / "origin", folder / name / "mask") for name in names]
    classes = in_label_space(_own_classes(root), label_space, where=root)
    return VspwSource(videos, classes, name=str(root), on_error=on_error)


def find_splits(root: Path) -> tuple[str, ...]:
    """Lists of videos, "all" without one."""
    videos = _videos(_folder(root))
    if not videos:
        return ()
    return tuple(path.stem for path in sorted(root.glob("*.txt")) if first_line(path) in videos) or (ALL,)


class VspwSource(VideoSource):
    """Videos with one region per class; see `read_vspw`."""

    parts = ("classes", "scene")

    def __init__(
        self, records: list[Video], classes: DatasetClasses, *, name: str, on_error: OnError = "raise"
    ) -> None:
        super().__init__(records, classes.label_space, name=name, on_error=on_error)
        self._class_of = classes.class_of

    def read_frame(self, video: Video, position: int, truth: Path) -> FrameTruth:
        """The classes of one frame."""
        del video, position
        ids = read_ids(truth)
        values = [value for value in values_of(ids) if value not in VOID]
        strangers = [value for value in values if value not in self._class_of]
        if strangers:
            raise SampleError(
                f"{truth} holds the values {listed(strangers)}, which stand for no class: expected 1 to "
                f"{max(self._class_of)}, and 0 or 255 for void"
            )
        regions = regions_of(ids, {value: self._class_of[value] for value in values})
        return FrameTruth((ids.shape[0], ids.shape[1]), regions, void_of(ids, *VOID))


def _folder(root: Path) -> Path:
    return root / "data" if (root / "data").is_dir() else root


def _videos(folder: Path) -> tuple[str, ...]:
    return tuple(
        video.name for video in subfolders(folder) if (video / "origin").is_dir() and (video / "mask").is_dir()
    )


def _own_classes(root: Path) -> DatasetClasses:
    path = root / NAME_FILE
    space = builtin_label_space("vipseg")
    vipseg = DatasetClasses(space, {number + 1: place for place, number in enumerate(space.dataset_ids)})
    if not path.is_file():
        return vipseg
    content = read_json(path)
    try:
        names = {int(number): str(name) for name, number in content.items() if int(number) not in VOID}
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected the number of each class by its name, such as {{'wall': 1}}") from error
    is_vipseg = all(space.find(name) == vipseg.class_of.get(number, -1) for number, name in names.items())
    return vipseg if is_vipseg else named_classes(names, name="vspw_names")


LAYOUT = Layout("vspw", "VSPW", find_splits, read_vspw)
