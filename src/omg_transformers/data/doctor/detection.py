"""Which layouts a folder is in; for one in no layout, what lies there and what comes near."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omg_transformers.data.readers import LAYOUTS, detect_layouts, open_layout
from omg_transformers.metrics.label_png import describe_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

# What tells each layout, as patterns under the root; where some but not all are there, the layout is near.
SIGNS: dict[str, tuple[str, ...]] = {
    "coco_panoptic": ("annotations/panoptic_*.json", "annotations/panoptic_*/*.png"),
    "coco_instances": ("annotations/instances_*.json", "*2017/*.jpg"),
    "lvis": ("annotations/lvis_*.json", "*2017/*.jpg"),
    "vipseg": ("imgs/*/*.jpg", "panomasks/*/*.png"),
    "youtube_vis": ("*/JPEGImages/*/*.jpg", "*/instances.json"),
    "davis": ("JPEGImages/480p/*/*.jpg", "Annotations/480p/*/*.png"),
    "youtube_vos": ("*/JPEGImages/*/*.jpg", "*/Annotations/*/*.png"),
    "vspw": ("data/*/origin/*.jpg", "data/*/mask/*.png"),
    "cityscapes": ("leftImg8bit/*/*/*.png", "gtFine/*/*/*.png"),
    "ade20k": ("images/*/*.jpg", "annotations/*/*.png"),
    "voc": ("JPEGImages/*.jpg", "SegmentationClass/*.png"),
    "yolo_seg": ("images/**/*.jpg", "labels/**/*.txt"),
    "labelme": ("*.jpg", "*.json"),
    "sa_v": ("*.mp4", "*_manual.json"),
    "mask_folder": ("images/*", "masks/*.png"),
}


def describe_folder_layouts(root: str | Path) -> list[dict[str, Any]]:
    """Per fitting layout its name, title and splits; per split number of samples, classes and tasks, or the error."""
    found = []
    for detection in detect_layouts(root):
        splits = [_describe_split(detection.layout.name, root, name) for name in detection.splits]
        found.append({"kind": detection.layout.name, "title": detection.layout.title, "splits": splits})
    return found


def describe_near(root: str | Path) -> str:
    """What lies in a folder that is in no layout, where another folder fits, and which layouts come near."""
    folder = Path(root)
    parts = [f"It is {describe_folder(folder)}."]
    for other in _others(folder):
        fitting = [detection.layout.name for detection in detect_layouts(other)]
        if fitting:
            parts.append(f"{other} fits {', '.join(fitting)}: give that folder.")
            break
    near = list(_near(folder))
    if near:
        parts.append(f"Near: {'; '.join(near)}.")
    if len(parts) == 1:
        parts.append(f"Layouts are {', '.join(layout.name for layout in LAYOUTS)}.")
    return " ".join(parts)


def _describe_split(kind: str, root: str | Path, split: str) -> dict[str, Any]:
    try:
        source = open_layout(kind, root, split)
    except (ValueError, OSError) as error:
        return {"split": split, "error": " ".join(str(error).split())}
    space = source.label_space
    return {
        "split": split,
        "num_samples": source.num_samples,
        "is_video": bool(getattr(source, "is_video", False)),
        "label_space": space.name,
        "num_classes": 0 if space.is_class_agnostic else len(space),
        "classes": [] if space.is_class_agnostic else list(space.names),
        "tasks": list(source.tasks),
    }


def _others(folder: Path) -> Iterator[Path]:
    """Folders below, two deep, then the one above."""
    below = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))[:20]
    yield from below
    for path in below:
        yield from sorted(deeper for deeper in path.iterdir() if deeper.is_dir())[:20]
    yield folder.resolve().parent


def _near(folder: Path) -> Iterator[str]:
    for name, signs in SIGNS.items():
        there = [sign for sign in signs if next(folder.glob(sign), None) is not None]
        if there and len(there) < len(signs):
            missing = ", ".join(sign for sign in signs if sign not in there)
            yield f"{name} (found {', '.join(there)}; missing {missing})"
