"""Reader of COCO instance files, as COCO itself and the tools of annotators write them."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omg_transformers.data.file_source import FileSource
from omg_transformers.data.frames import frame_size, turn_hint
from omg_transformers.data.readers.builtin_classes import known_classes
from omg_transformers.data.readers.json_files import first_text, mentions, read_object
from omg_transformers.data.readers.json_rows import check_rows
from omg_transformers.data.readers.layout import Layout
from omg_transformers.data.readers.outlines import region_of_coco
from omg_transformers.data.readers.pairs import subfolders
from omg_transformers.data.regions import merge_stuff
from omg_transformers.data.sources import OnError, SampleError
from omg_transformers.structures import Annotation, Segment

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from omg_transformers.data.readers.classes import DatasetClasses
    from omg_transformers.labels import LabelSpace
    from omg_transformers.structures import Sample

# Keys of LVIS for a picture: classes that were looked for in vain, and classes of which it shows more than annotated.
ABSENT, MORE = "neg_category_ids", "not_exhaustive_category_ids"
# Files of Roboflow, and of FiftyOne, in the folder of each split.
_SPLIT_FILES = ("_annotations.coco.json", "labels.json", "annotations.json")
_NO_INSTANCES = ("panoptic_", "person_keypoints_", "captions_", "image_info_", "stuff_", "lvis_")


def read_coco_instances(
    root: str | Path,
    split: str,
    *,
    label_space: LabelSpace | None = None,
    on_error: OnError = "raise",
    json: str | Path | None = None,
    pictures: str | Path | None = None,
) -> CocoInstancesSource:
    """Objects of a COCO file: polygons, plain and compressed RLE, crowds. Overlapping objects stay so.

    Every picture that the file lists is a sample, also without objects. What belongs to no object is neither a segment
    nor void. A picture with LVIS' `neg_category_ids` or `not_exhaustive_category_ids` is certain only of the classes
    that they and its objects tell of. json, pictures: the file and the folder that its `file_name`s start from,
    relative to `root`; None: found.
    label_space: default the file's categories, all things (the built-in "coco_instance" for COCO's own); otherwise
    those that are used find their class by name, synonym or supercategory. Errors name the file.
    """
    folder = Path(root)
    path = _file_of(folder, split) if json is None else folder / json
    content = read_coco(path, title="COCO instances")
    if pictures is None:
        names = [str(picture.get("file_name", "")) for picture in content["images"][:3]]
        place = next(_picture_folders(folder, path, split, names), None if names else folder)
        if place is None:
            tried = ", ".join(str(place) for place in dict.fromkeys(_candidates(folder, path, split)))
            raise ValueError(f"no picture of {path}, such as {names[:1]}, is in {tried}: say where with pictures=...")
    else:
        place = folder / pictures
    used = {annotation.get("category_id") for annotation in content["annotations"]}
    classes = known_classes(
        content["categories"],
        label_space,
        builtins=("coco_instance",),
        name=folder.resolve().name or "coco",
        where=path,
        used=used,
    )
    return CocoInstancesSource(path, place, content, classes, on_error)


def read_coco(path: Path, *, title: str) -> dict[str, Any]:
    """The content of a COCO file with its ids and sizes as numbers, also where a tool wrote texts.

    Raises FileNotFoundError, or ValueError for a damaged file and for lists of other things.
    """
    content = read_object(path, ("images", "annotations", "categories"), title=title)
    for key, noun, numbers in (
        ("images", "picture", ("id", "height", "width")),
        ("annotations", "annotation", ("image_id", "category_id")),
        ("categories", "category", ("id",)),
    ):
        kinds: dict[str, tuple[type, ...]] = {"id": (int, float, str)} if key == "images" else {}
        for row in check_rows(content[key], kinds, where=path, noun=noun):
            for number in numbers:
                if isinstance(row.get(number), (str, list, dict)):
                    row[number] = _plain(row[number])
    return content


def find_splits(root: Path) -> tuple[str, ...]:
    """Splits whose JSON has masks and whose first picture is there."""
    return tuple(
        split
        for split, path in _files(root).items()
        # Files of video sets have "segmentations" under the same names.
        if mentions(path, '"segmentation"') and next(_picture_folders(root, path, split, _first(path)), None)
    )


class CocoInstancesSource(FileSource[dict[str, Any]]):
    """The pictures that a COCO file lists, with their objects; see `read_coco_instances`."""

    parts = ("classes", "instances")

    def __init__(
        self,
        json_path: Path,
        picture_folder: Path,
        content: dict[str, Any],
        classes: DatasetClasses,
        on_error: OnError = "raise",
    ) -> None:
        self.json_path, self.picture_folder = json_path, picture_folder
        self._class_of = classes.class_of
        self._objects: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        for annotation in content["annotations"]:
            self._objects[annotation.get("image_id")].append(annotation)
        listed = {picture.get("id") for picture in content["images"]}
        if len(listed) < len(content["images"]):
            raise ValueError(f"{json_path} lists a picture id twice, or a picture without id: give each its own")
        strays = [{"stray": image} for image in self._objects if image not in listed]
        super().__init__([*content["images"], *strays], classes.label_space, name=str(json_path), on_error=on_error)

    def read(self, record: dict[str, Any]) -> Sample:
        """One picture with its objects."""
        if "stray" in record:
            image = record["stray"]
            raise SampleError(
                f"{self.json_path}: {len(self._objects[image])} annotations belong to picture {image}, "
                "which `images` does not list: add it there, or remove them"
            )
        path = self.picture_path(record)
        size = frame_size(path, name=f"picture {record['id']}")
        stated = (record.get("height"), record.get("width"))
        if None not in stated and size != stated:
            raise SampleError(
                f"{path} is {size[0]} high and {size[1]} wide, {self.json_path} says {stated[0]} and {stated[1]}"
                f"{turn_hint(path, stated)}"
            )
        segments = [self._segment(found, size) for found in self._objects.get(record["id"], ())]
        annotation = self.annotation(record, size, [segment for segment in segments if segment is not None])
        return self.make_sample(str(record["id"]), (path,), annotation)

    def picture_path(self, record: dict[str, Any]) -> Path:
        """Where the picture of an entry of `images` is expected."""
        name = str(record.get("file_name", "")).replace("\\", "/")
        if not name:
            raise SampleError(f"{self.json_path}: picture {record['id']} has no file_name")
        path = self.picture_folder / name
        # Label Studio writes paths of its own server.
        return path if path.is_file() else _existing(self.picture_folder / Path(name).name, path)

    def annotation(self, record: dict[str, Any], size: tuple[int, int], segments: list[Segment]) -> Annotation:
        """The annotation of a picture with these objects. record: its entry of `images`."""
        is_thing = tuple(self.label_space.is_thing)
        certain = self._certain_classes(record) if ABSENT in record or MORE in record else None
        return Annotation(size, is_thing, merge_stuff(segments, is_thing), certain_classes=certain)

    def _certain_classes(self, record: dict[str, Any]) -> frozenset[int]:
        """Classes that were looked for in a picture, and of which all was annotated."""
        annotated = {found["category_id"] for found in self._objects.get(record["id"], ())}
        certain = (annotated | set(record.get(ABSENT, ()))) - set(record.get(MORE, ()))
        open_classes = {label for number, label in self._class_of.items() if number not in certain}
        return frozenset(label for label in self._class_of.values() if label >= 0) - open_classes

    def _segment(self, found: dict[str, Any], size: tuple[int, int]) -> Segment | None:
        where = f"{self.json_path}: annotation {found.get('id')} of picture {found['image_id']}"
        category: Any = found.get("category_id")
        if category not in self._class_of:
            raise SampleError(f"{where} has category {category}, which `categories` does not list")
        rle = region_of_coco(found.get("segmentation"), size, where=where)
        if rle is None:
            return None
        number = found.get("id")
        track = number if isinstance(number, int) else -1
        return Segment(self._class_of[category], (rle,), track, bool(found.get("iscrowd", 0)))


def _plain(value: Any) -> Any:
    """A number that was written as a text, such as "12" but not "012"; of a list or object a text that names it."""
    if isinstance(value, str):
        return int(value) if value.isdecimal() and str(int(value)) == value else value
    return str(value)


def _files(root: Path) -> dict[str, Path]:
    """The JSON of each split, the usual places first."""
    found: dict[str, Path] = {}
    for path in sorted(root.glob("annotations/instances_*.json")):
        found.setdefault(path.stem.removeprefix("instances_"), path)
    for folder in subfolders(root):
        for path in (folder / name for name in _SPLIT_FILES):
            if folder.name != "annotations" and _is_instances(path):
                found.setdefault(folder.name, path)
    for path in (*sorted(root.glob("annotations/*.json")), *sorted(root.glob("*.json"))):
        if path not in found.values() and _is_instances(path):
            found.setdefault("all" if path.name == "_annotations.coco.json" else path.stem, path)
    return found


def _is_instances(path: Path) -> bool:
    return (
        path.is_file()
        and not path.name.startswith(_NO_INSTANCES)
        and mentions(path, '"categories"', '"images"', '"segmentation"', '"image_id"')
        and not mentions(path, f'"{ABSENT}"')
    )


def _file_of(root: Path, split: str) -> Path:
    found = _files(root)
    if split not in found:
        known = f"found {', '.join(found)}" if found else "found none"
        raise ValueError(
            f"{root} has no COCO instances file for the split {split!r} ({known}): expected "
            f"annotations/instances_{split}.json or {split}/_annotations.coco.json; or say which with json=..."
        )
    return found[split]


def _first(path: Path) -> list[str]:
    name = first_text(path, "file_name")
    return [] if name is None else [name]


def _candidates(root: Path, path: Path, split: str) -> Iterator[Path]:
    for folder in (root, path.parent):
        for name in (split, f"images/{split}", f"{split}/images", f"{split}/data", "images", "data", "."):
            yield folder / name


def _picture_folders(root: Path, path: Path, split: str, names: Sequence[str]) -> Iterator[Path]:
    """Folders that hold one of the named pictures, under the whole name or its last part."""
    plain = [name.replace("\\\\", "/").replace("\\", "/") for name in names]
    for shorten in (False, True):
        for folder in _candidates(root, path, split):
            if any((folder / (Path(name).name if shorten else name)).is_file() for name in plain if name):
                yield folder


def _existing(path: Path, otherwise: Path) -> Path:
    return path if path.is_file() else otherwise


LAYOUT = Layout("coco_instances", "COCO instances", find_splits, read_coco_instances)
