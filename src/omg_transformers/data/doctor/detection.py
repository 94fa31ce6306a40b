"""Which layouts a folder is in; for one in no layout, what lies there and what comes near."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omg_transformers.data.doctor.kinds import in_words
from omg_transformers.data.readers import ARCHIVES, LAYOUTS, detect_layouts, open_layout
from omg_transformers.data.readers.json_files import first_text, mentions
from omg_transformers.data.readers.mask_folder import folder_pairs
from omg_transformers.data.readers.pairs import files_by_name
from omg_transformers.metrics.label_png import describe_folder, listed
from omg_transformers.processing.pictures import PICTURE_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterator

# A data set has thousands of folders; a root has few.
MAX_FOLDERS = 20
# What tells each layout, as patterns under the root, the annotations last. Where some but not all are there, the layout
# is near; pictures alone tell nothing.
SIGNS: dict[str, tuple[str, ...]] = {
    "coco_panoptic": ("annotations/panoptic_*/*.png", "annotations/panoptic_*.json"),
    "coco_instances": ("*2017/*.jpg", "annotations/instances_*.json"),
    "lvis": ("*2017/*.jpg", "annotations/lvis_*.json"),
    "vipseg": ("imgs/*/*.jpg", "panomasks/*/*.png"),
    "youtube_vis": ("*/JPEGImages/*/*.jpg", "*/instances.json"),
    "davis": ("JPEGImages/480p/*/*.jpg", "Annotations/480p/*/*.png"),
    "youtube_vos": ("*/JPEGImages/*/*.jpg", "*/Annotations/*/*.png"),
    "vspw": ("data/*/origin/*.jpg", "data/*/mask/*.png"),
    "cityscapes": ("leftImg8bit/*/*/*.png", "gtFine/*/*/*.png"),
    "ade20k": ("images/*/*.jpg", "annotations/*/*.png"),
    "voc": ("JPEGImages/*.jpg", "SegmentationClass/*.png"),
    "yolo_seg": ("images/**/*.jpg", "labels/**/*.txt"),
    "mask_folder": ("images/*", "masks/*.png"),
}
# Words that a JSON of this form holds, and where its reader expects it.
FORMS = (
    (("segments_info",), "COCO panoptic: expected annotations/panoptic_SPLIT.json, PNGs in annotations/panoptic_SPLIT"),
    (("videos", "segmentations"), "YouTube-VIS: expected SPLIT/instances.json, frames in SPLIT/JPEGImages/VIDEO"),
    (("masklet",), "SA-V: expected VIDEO_manual.json beside VIDEO.mp4"),
    (("neg_category_ids",), "LVIS: expected annotations/lvis_SPLIT.json, pictures as in its coco_url"),
    (("images", "segmentation", "image_id"), "COCO instances: expected annotations/instances_SPLIT.json beside SPLIT/"),
    (("shapes", "imagePath"), "labelme: expected beside its picture, one level below the root at most"),
)
# Numbers in a line of a text file of boxes.
BOX_WORDS = 5
# Folders of which the one above is the root.
PARTS = ("annotations", "images", "labels", "masks", "jpegimages", "imgs", "panomasks", "leftimg8bit", "gtfine")


def describe_folder_layouts(root: str | Path) -> list[dict[str, Any]]:
    """Per fitting layout its name, title and splits; per split number of samples, classes and tasks, or the error."""
    found = []
    for detection in detect_layouts(root):
        splits = [_describe_split(detection.layout.name, root, name) for name in detection.splits]
        found.append({"kind": detection.layout.name, "title": detection.layout.title, "splits": splits})
    return found


def describe_near(root: str | Path) -> str:
    """What lies in a folder that is in no layout, which other folder fits, and which layouts come near."""
    folder = Path(root)
    others = [(other, fitting) for other in _others(folder) if (fitting := _fitting(other))]
    parts = [f"It is {describe_folder(folder)}."]
    parts += [f"{other} fits {', '.join(fitting)}: give that folder." for other, fitting in others]
    if not others:
        near = [*_near(folder), *_forms(folder), *_boxes(folder), *_strange_masks(folder)]
        archives = [path.name for path in sorted(folder.iterdir()) if path.suffix.lower() in ARCHIVES]
        if near:
            parts.append(f"Near: {'; '.join(near)}.")
        elif archives:
            parts.append(f"Unpack {listed(archives)}, then give the folder.")
        elif _holds_only_pictures(folder):
            parts.append("These are pictures or frames, and nothing here annotates them.")
        else:
            parts.append(f"Layouts are {', '.join(layout.name for layout in LAYOUTS)}.")
    return " ".join(parts)


def sets_inside(root: str | Path) -> dict[str, list[str]]:
    """Where a folder seems to hold several data sets: per folder below it the layouts that fit, else {}.

    The parts of one data set may look like sets of their own, but then all look alike.
    """
    # Pictures alone are no data set, and every layout would list them, by the hundred thousand.
    found = {
        path.name: layouts
        for path in _folders(Path(root))
        if any(file.suffix.lower() not in PICTURE_SUFFIXES for file in path.iterdir()) and (layouts := _fitting(path))
    }
    is_collection = len({tuple(layouts) for layouts in found.values()}) > 1
    return found if is_collection else {}


def _fitting(folder: Path) -> list[str]:
    return [detection.layout.name for detection in detect_layouts(folder)]


def _describe_split(kind: str, root: str | Path, split: str) -> dict[str, Any]:
    try:
        source = open_layout(kind, root, split)
    except Exception as error:  # noqa: BLE001 - whatever a reader stumbles over is said of its split, not the end
        return {"split": split, "error": in_words(error)}
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
    """Folders below, two deep, and the one above where this is a part of a layout."""
    below = _folders(folder)
    yield from below
    for path in below:
        yield from _folders(path)
    if folder.resolve().name.lower() in PARTS:
        yield folder.resolve().parent


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))[:MAX_FOLDERS]


def _near(folder: Path) -> Iterator[str]:
    for name, signs in SIGNS.items():
        there = [sign for sign in signs if next(folder.glob(sign), None) is not None]
        if signs[-1] in there and len(there) < len(signs):
            missing = ", ".join(sign for sign in signs if sign not in there)
            yield f"{name} (found {', '.join(there)}; missing {missing})"


def _forms(folder: Path) -> Iterator[str]:
    told = set()
    for path in sorted([*folder.glob("*.json"), *folder.glob("*/*.json")])[:MAX_FOLDERS]:
        for words, form in FORMS:
            if mentions(path, *(f'"{word}"' for word in words)):
                if form not in told:
                    picture = first_text(path, "file_name")
                    called = f"; its first picture is called {picture}" if picture and "SPLIT/" in form else ""
                    yield f"{path.relative_to(folder)} has the form of {form}{called}"
                told.add(form)
                break


def _boxes(folder: Path) -> Iterator[str]:
    """The first text file under a folder of labels, if it holds YOLO's boxes."""
    for path in (*sorted(folder.glob("labels/*/*.txt")), *sorted(folder.glob("*/labels/*.txt")))[:MAX_FOLDERS]:
        words = path.read_text(encoding="utf-8", errors="replace").partition("\n")[0].split()
        if len(words) == BOX_WORDS:
            yield (
                f"{path.relative_to(folder)} holds boxes (class x y width height), "
                "yolo_seg needs polygons (class x y x y ..)"
            )
            return


def _strange_masks(folder: Path) -> Iterator[str]:
    """Why folders of pictures and masks do not belong together."""
    for pictures, masks in folder_pairs(folder):
        ours, theirs = files_by_name(pictures), files_by_name(masks)
        if ours and theirs:
            first, other = next(iter(ours.values())).name, next(iter(theirs.values())).name
            blurred = ours.keys() & theirs.keys()
            why = "the masks are JPEG, which blurs ids" if blurred else f"they share no name: {first}, {other}"
            yield f"mask_folder ({pictures.name}/ and {masks.name}/ are there, but {why})"


def _holds_only_pictures(folder: Path) -> bool:
    files = [path for place in (folder, *_folders(folder)) for path in place.iterdir() if path.is_file()]
    return bool(files) and all(path.suffix.lower() in PICTURE_SUFFIXES for path in files)
