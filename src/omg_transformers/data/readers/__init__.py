"""Readers of the layouts in which data sets lie on disk, and what finds the right one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omg_transformers.data.readers import (
    ade20k,
    camvid,
    cityscapes,
    coco_instances,
    coco_panoptic,
    davis,
    hf_dataset,
    kitti_step,
    labelme,
    lvis,
    mask_folder,
    sa1b,
    sa_v,
    vipseg,
    voc,
    vspw,
    yolo_seg,
    youtube_vis,
)
from omg_transformers.data.readers.layout import Layout
from omg_transformers.settings import nearest

if TYPE_CHECKING:
    from omg_transformers.data.sources import OnError, SampleSource
    from omg_transformers.labels import LabelSpace

# The more particular first: a folder may look like several.
LAYOUTS: tuple[Layout, ...] = (
    coco_panoptic.LAYOUT,
    lvis.LAYOUT,
    vipseg.LAYOUT,
    youtube_vis.LAYOUT,
    davis.DAVIS,
    davis.YOUTUBE_VOS,
    vspw.LAYOUT,
    kitti_step.KITTI_STEP,
    kitti_step.MOTS,
    sa_v.LAYOUT,
    camvid.LAYOUT,
    cityscapes.PANOPTIC_LAYOUT,
    cityscapes.LAYOUT,
    ade20k.LAYOUT,
    ade20k.FULL_LAYOUT,
    voc.LAYOUT,
    sa1b.LAYOUT,
    coco_instances.LAYOUT,
    yolo_seg.LAYOUT,
    labelme.LAYOUT,
    hf_dataset.LAYOUT,
    mask_folder.LAYOUT,
)

ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")


@dataclass(frozen=True, slots=True)
class Detection:
    """A layout that fits a folder, and the splits found in it."""

    layout: Layout
    splits: tuple[str, ...]


def detect_layouts(root: str | Path) -> list[Detection]:
    """The layouts that fit `root`, the most particular first. Raises ValueError when it is no folder."""
    folder = _folder(root)
    found = [Detection(layout, layout.splits(folder)) for layout in LAYOUTS]
    return [detection for detection in found if detection.splits]


def open_layout(
    kind: str,
    root: str | Path,
    split: str | None = None,
    *,
    label_space: LabelSpace | None = None,
    on_error: OnError = "raise",
    **options: Any,
) -> SampleSource:
    """The samples of one split of a folder in the layout `kind`. options: the reader's own keyword arguments.

    split: may be left out when there is only one. Raises ValueError with the known names for a wrong kind or split.
    """
    layout = _layout(kind)
    folder = _folder(root)
    splits = layout.splits(folder)
    if split is None and len(splits) == 1:
        split = splits[0]
    elif options:
        split = split or ""  # the reader's options may say where the files are
    elif split is None:
        found = f"it holds {', '.join(splits)}" if splits else f"no {layout.title} was found there"
        raise ValueError(f"split is missing for {folder}: {found}. Name one")
    elif splits and split not in splits:
        raise ValueError(f"{folder} has no split {split!r} in the layout {kind}{nearest(split, splits)}")
    return layout.open(folder, split, label_space=label_space, on_error=on_error, **options)


def _layout(kind: str) -> Layout:
    for layout in LAYOUTS:
        if layout.name == kind:
            return layout
    raise ValueError(f"kind is {kind!r}: no such layout{nearest(kind, [layout.name for layout in LAYOUTS])}")


def _folder(root: str | Path) -> Path:
    folder = Path(root)
    if folder.suffix.lower() in ARCHIVES and folder.is_file():
        raise ValueError(f"{folder} is no folder but an archive: unpack it and give the folder")
    if not folder.is_dir():
        what = "no folder but a file" if folder.is_file() else "no folder"
        raise ValueError(f"{folder} is {what}: give the root of the data set")
    return folder
