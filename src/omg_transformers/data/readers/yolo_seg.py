"""Reader of YOLO's segmentation labels: one text file per picture, one polygon per line."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from omg_transformers.data.file_source import FileSource
from omg_transformers.data.frames import frame_size
from omg_transformers.data.readers.classes import in_label_space, named_classes, names_by_id, read_names
from omg_transformers.data.readers.layout import Layout
from omg_transformers.data.readers.outlines import region_of_polygons
from omg_transformers.data.readers.pairs import Pair, files_by_name, has_files, pair_files, subfolders
from omg_transformers.data.regions import merge_stuff
from omg_transformers.data.sources import OnError, SampleError
from omg_transformers.structures import Annotation, Segment

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from omg_transformers.data.readers.classes import DatasetClasses
    from omg_transformers.labels import LabelSpace
    from omg_transformers.structures import Sample

# class x y: fewer than three points follow.
_LEAST_NUMBERS = 7
_BOX_NUMBERS = 5
_LOOKED_AT = 16
_ALL = "all"


def read_yolo_seg(
    root: str | Path,
    split: str,
    *,
    label_space: LabelSpace | None = None,
    on_error: OnError = "raise",
    names: Iterable[str] | Mapping[int, str] | None = None,
) -> YoloSegSource:
    """`images/<split>` and `labels/<split>/*.txt`, or `<split>/images` and `<split>/labels`; names in `data.yaml`.

    A line is one object: class, then x y of each point as shares of width and height. A picture without a text file
    has no objects, as in YOLO. names: a list, or {id: name}; None: of the YAML file or of `classes.txt`. All are
    things unless a built-in space knows the name as stuff. Raises ValueError that says what is missing.
    """
    folder = Path(root)
    places = _places(folder).get(split)
    if places is None:
        raise ValueError(f"{folder} has no split {split!r}: expected images/{split} and labels/{split} with text files")
    known = _names(folder) if names is None else names_by_id(names)
    if known is None:
        raise ValueError(f"{folder} names no classes: put `names: [...]` into data.yaml, or pass names=[...]")
    classes = in_label_space(named_classes(known, name=folder.resolve().name or "yolo"), label_space, where=folder)
    pictures, labels = places
    is_deep = split != _ALL
    pairs = pair_files(
        files_by_name(pictures, is_deep=is_deep),
        {name: path for name, path in files_by_name(labels, ".txt", is_deep=is_deep).items() if name != "classes"},
        expected_picture=lambda name: pictures / f"{name}.jpg",
        expected_annotation=lambda name: labels / f"{name}.txt",
    )
    return YoloSegSource(pairs, classes, name=str(labels), on_error=on_error)


def find_splits(root: Path) -> tuple[str, ...]:
    """Splits with a folder of pictures and one of text files; some hold polygons, others may be empty."""
    found = {split: _has_polygons(labels) for split, (_, labels) in _places(root).items()}
    return tuple(split for split, has in found.items() if has is not False) if any(found.values()) else ()


class YoloSegSource(FileSource[Pair]):
    """Pictures with objects as polygons; see `read_yolo_seg`."""

    parts = ("classes", "instances")

    def __init__(self, pairs: list[Pair], classes: DatasetClasses, *, name: str, on_error: OnError = "raise") -> None:
        self._class_of = classes.class_of
        super().__init__(pairs, classes.label_space, name=name, on_error=on_error)

    def read(self, record: Pair) -> Sample:
        """One picture with its objects."""
        size = frame_size(record.picture, name=record.name)
        path = record.annotation
        lines = path.read_text(encoding="utf-8-sig").splitlines() if path.is_file() else []
        segments = []
        for number, line in enumerate(lines, 1):
            if line.strip():
                segments += self._segment(line, size, number, f"{path}, line {number}")
        is_thing = tuple(self.label_space.is_thing)
        return self.make_sample(
            record.name, (record.picture,), Annotation(size, is_thing, merge_stuff(segments, is_thing))
        )

    def _segment(self, line: str, size: tuple[int, int], number: int, where: str) -> list[Segment]:
        try:
            label, *shares = (float(text) for text in line.split())
        except ValueError as error:
            raise SampleError(f"{where} is {line!r:.60}: expected numbers, class x y x y ..") from error
        if label not in self._class_of:
            raise SampleError(
                f"{where} has class {label:g}, which the names do not list: they are {list(self._class_of)}"
            )
        if len(shares) == _BOX_NUMBERS - 1:
            raise SampleError(f"{where} is a box (class x y width height): expected a polygon of at least 3 points")
        if shares and max(shares) > 2:
            raise SampleError(f"{where} reaches {max(shares):g}: expected shares of width and height, 0 to 1")
        points = [
            share * side for share, side in zip(shares, (size[1], size[0]) * (len(shares) // 2 + 1), strict=False)
        ]
        rle = region_of_polygons([points], size, where=where)
        return [] if rle is None else [Segment(self._class_of[int(label)], (rle,), number)]


def _places(root: Path) -> dict[str, tuple[Path, Path]]:
    """The pictures and labels of each split, in the folder or in the one that its YAML names."""
    found = _places_in(root)
    for path in () if found else _yaml_files(root):
        found = found or {split: places for base in _base_of(path) for split, places in _places_in(base).items()}
    return found


def _places_in(root: Path) -> dict[str, tuple[Path, Path]]:
    found = {}
    if has_files(root / "labels", ".txt") and has_files(root / "images"):
        found[_ALL] = (root / "images", root / "labels")
    for folder in subfolders(root / "labels"):
        if any(folder.rglob("*.txt")) and (root / "images" / folder.name).is_dir():
            found[folder.name] = (root / "images" / folder.name, folder)
    for folder in subfolders(root):
        if has_files(folder / "labels", ".txt") and (folder / "images").is_dir():
            found[folder.name] = (folder / "images", folder / "labels")
    return found


def _has_polygons(labels: Path) -> bool | None:
    """Whether a line of the first files is a polygon; None where all files are empty."""
    paths = (path for path in sorted(labels.rglob("*.txt")) if path.name != "classes.txt")
    texts = (path.read_text(encoding="utf-8-sig", errors="replace").split("\n") for path in paths)
    filled = (lines for lines in texts if any(line.strip() for line in lines))
    looked_at = list(itertools.islice(filled, _LOOKED_AT))
    return any(_is_polygon(line.split()) for lines in looked_at for line in lines) if looked_at else None


def _is_polygon(words: list[str]) -> bool:
    return len(words) >= _LEAST_NUMBERS and all(_is_number(text) for text in words)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _names(root: Path) -> dict[int, str] | None:
    above = (path for path in _yaml_files(root.resolve().parent) if root.resolve() in _base_of(path))
    for path in (*_yaml_files(root), *above):
        names = _names_of_yaml(path)
        if names is not None:
            return names
    return read_names(root) or read_names(root / "labels")


def _yaml_files(root: Path) -> list[Path]:
    paths = (root / "data.yaml", root / "dataset.yaml", *sorted(root.glob("*.y*ml")))
    return [path for path in dict.fromkeys(paths) if path.is_file()]


def _base_of(path: Path) -> list[Path]:
    """The folder that the `path` of a YAML names, if it is there."""
    with contextlib.suppress(ValueError, OSError):
        base = _read_yaml(path).get("path")
        if isinstance(base, str) and (path.parent / base).is_dir():
            return [(path.parent / base).resolve()]
    return []


def _names_of_yaml(path: Path) -> dict[int, str] | None:
    try:
        names = _read_yaml(path).get("names")
        return None if names is None else names_by_id(names)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} gives no names ({' '.join(str(error).split())}): expected names: [..]") from error


def _read_yaml(path: Path) -> dict[str, Any]:
    """The object in a YAML file, its values as texts: a class may be called "no" or 7. Raises ValueError."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    return content if isinstance(content, dict) else {}


LAYOUT = Layout("yolo_seg", "YOLO segmentation", find_splits, read_yolo_seg)
