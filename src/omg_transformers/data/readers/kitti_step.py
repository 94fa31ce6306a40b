"""Readers of KITTI-STEP and MOTS: traffic and pedestrians followed through videos, classes and objects in PNGs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from omg_transformers.data.readers.classes import DatasetClasses, classes_of_space
from omg_transformers.data.readers.layout import Layout
from omg_transformers.data.readers.pairs import has_files, subfolders
from omg_transformers.data.readers.videos import (
    FrameTruth,
    Region,
    Video,
    VideoSource,
    pair_frames,
    read_ids,
    regions_of,
    values_of,
    void_of,
)
from omg_transformers.data.sources import SampleError
from omg_transformers.labels import LabelClass, LabelSpace, builtin_label_space
from omg_transformers.metrics.label_png import describe_folder, listed

if TYPE_CHECKING:
    from typing import Any

    from omg_transformers.data.sources import OnError

MAPS, INSTANCES = "panoptic_maps", "instances"
ALL = "all"
VOID = 255
# Red holds the class, green and blue the object; as one number: class * 65536 + object.
STEP = 1 << 16
# In MOTS's PNGs class * 1000 + object; one value stands for regions that nobody looked at.
MOTS_STEP, MOTS_IGNORED = 1000, 10_000


def kitti_step_label_space() -> LabelSpace:
    """The 19 classes of Cityscapes; only persons and cars are followed one by one, the others are stuff here."""
    space = builtin_label_space("cityscapes")
    classes = tuple(replace(label, is_thing=label.name in ("person", "car")) for label in space.classes)
    return LabelSpace("kitti_step", classes, void_ids=(VOID,))


def mots_label_space() -> LabelSpace:
    """Cars (1) and pedestrians (2)."""
    car = LabelClass("car", color=(0, 0, 142), dataset_id=1)
    person = LabelClass("pedestrian", ("person",), color=(220, 20, 60), dataset_id=2)
    return LabelSpace("mots", (car, person), void_ids=(10,))


def read_kitti_step(
    root: str | Path, split: str = "train", *, label_space: LabelSpace | None = None, on_error: OnError = "raise"
) -> KittiStepSource:
    """Videos `root/panoptic_maps/SPLIT/VIDEO/*.png` with frames in `root/images/SPLIT/VIDEO` or KITTI's `image_02`.

    In these PNGs red is the class (255: void), green * 256 + blue the object; a person or car with object 0 is a crowd.
    label_space: default `kitti_step_label_space`. Where a class of KITTI-STEP without objects is a thing in another
    space, its region is a crowd there.
    """
    root = Path(root)
    maps = root / MAPS / split
    folders = (root / "images" / split, root / "training" / "image_02", root / split / "image_02", root / split)
    videos = _videos(maps, folders)
    classes = classes_of_space(kitti_step_label_space(), label_space, where=maps)
    return KittiStepSource(videos, classes, name=str(maps), on_error=on_error)


def read_mots(
    root: str | Path, split: str = ALL, *, label_space: LabelSpace | None = None, on_error: OnError = "raise"
) -> MotsSource:
    """Videos `root/instances/VIDEO/*.png` with frames in `root/training/image_02/VIDEO` or `root/images/VIDEO`.

    split: "all", or a folder of `root` that holds `instances`. In these PNGs a value is class * 1000 + object, 0 is
    background, 10000 a region that nobody looked at (void). Cars are 1, pedestrians 2.
    """
    folder = Path(root) if split == ALL else Path(root) / split
    places = (folder / "training" / "image_02", folder / "images", folder / "image_02", folder / "training", folder)
    classes = classes_of_space(mots_label_space(), label_space, where=folder)
    return MotsSource(_videos(folder / INSTANCES, places), classes, name=str(folder / INSTANCES), on_error=on_error)


def find_kitti_step_splits(root: Path) -> tuple[str, ...]:
    """Folders of `panoptic_maps` with videos of PNGs."""
    return tuple(folder.name for folder in subfolders(root / MAPS) if _has_maps(folder))


def find_mots_splits(root: Path) -> tuple[str, ...]:
    """ "all" where `instances` lies in the root, else the folders that hold one."""
    if _has_maps(root / INSTANCES):
        return (ALL,)
    return tuple(folder.name for folder in subfolders(root) if _has_maps(folder / INSTANCES))


class KittiStepSource(VideoSource):
    """Videos with things, stuff, crowds and void; see `read_kitti_step`."""

    parts = ("classes", "instances", "scene", "tracks")

    def __init__(
        self, records: list[Video], classes: DatasetClasses, *, name: str, on_error: OnError = "raise"
    ) -> None:
        super().__init__(records, classes.label_space, name=name, on_error=on_error)
        self._class_of = classes.class_of

    def read_frame(self, video: Video, position: int, truth: Path) -> FrameTruth:
        """Things and stuff of one frame."""
        del video, position
        ids = _read_colors(truth)
        values = [value for value in values_of(ids) if value // STEP != VOID]
        strangers = sorted({value // STEP for value in values} - set(self._class_of))
        if strangers:
            raise SampleError(
                f"{truth} holds the classes {listed(strangers)} in red: expected 0 to {max(self._class_of)}, or 255 "
                "for void, as KITTI-STEP has them"
            )
        found = regions_of(ids, {value: self._class_of[value // STEP] for value in values})
        regions = {value: replace(region, is_crowd=self._is_crowd(value, region)) for value, region in found.items()}
        return FrameTruth((ids.shape[0], ids.shape[1]), regions, void_of(ids // STEP, VOID))

    def _is_crowd(self, value: int, region: Region) -> bool:
        """Things that nobody told apart."""
        is_thing = region.category_id < 0 or self.label_space.is_thing[region.category_id]
        return is_thing and value % STEP == 0


class MotsSource(VideoSource):
    """Videos with cars and pedestrians; see `read_mots`."""

    parts = ("classes", "instances", "tracks")

    def __init__(
        self, records: list[Video], classes: DatasetClasses, *, name: str, on_error: OnError = "raise"
    ) -> None:
        super().__init__(records, classes.label_space, name=name, on_error=on_error)
        self._class_of = classes.class_of

    def read_frame(self, video: Video, position: int, truth: Path) -> FrameTruth:
        """The objects of one frame."""
        del video, position
        ids = read_ids(truth)
        values = [value for value in values_of(ids) if value not in (0, MOTS_IGNORED)]
        strangers = [value for value in values if value // MOTS_STEP not in self._class_of]
        if strangers:
            raise SampleError(
                f"{truth} holds the values {listed(strangers)}: expected class * 1000 + object with the classes "
                f"{listed(self._class_of)}, 0 for background and {MOTS_IGNORED} for void"
            )
        regions = regions_of(ids, {value: self._class_of[value // MOTS_STEP] for value in values})
        return FrameTruth((ids.shape[0], ids.shape[1]), regions, void_of(ids, MOTS_IGNORED))


def _videos(maps: Path, folders: tuple[Path, ...]) -> list[Video]:
    names = [folder.name for folder in subfolders(maps)]
    if not names:
        raise ValueError(f"{maps} is {describe_folder(maps)}: expected one folder of PNGs per video")
    pictures = next((folder for folder in folders if (folder / names[0]).is_dir()), folders[0])
    return [pair_frames(name, pictures / name, maps / name) for name in names]


def _has_maps(folder: Path) -> bool:
    return any(has_files(video, ".png") for video in subfolders(folder)[:3])


def _read_colors(path: Path) -> np.ndarray[Any, Any]:
    try:
        with Image.open(path) as picture:
            mode, colors = picture.mode, np.asarray(picture)
    except (OSError, SyntaxError) as error:
        raise SampleError(f"{path} is missing or not a readable PNG ({error})") from error
    if mode not in ("RGB", "RGBA"):
        raise SampleError(f"{path} has mode {mode}: expected the colours of KITTI-STEP (red: class, others: object)")
    red, green, blue = (np.asfortranarray(colors[..., channel]).astype(np.int32, order="F") for channel in range(3))
    return (red << 16) + (green << 8) + blue


KITTI_STEP = Layout("kitti_step", "KITTI-STEP", find_kitti_step_splits, read_kitti_step)
MOTS = Layout("mots", "MOTS", find_mots_splits, read_mots)
