"""Reader of labelme: one JSON of shapes per picture."""

from __future__ import annotations

import base64
import binascii
import contextlib
import io
import math
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from omg_transformers.data.file_source import FileSource
from omg_transformers.data.frames import frame_size, turn_hint
from omg_transformers.data.readers.classes import in_label_space, is_background, named_classes, names_by_id, read_names
from omg_transformers.data.readers.json_files import mentions, read_sample_object
from omg_transformers.data.readers.json_rows import check_rows
from omg_transformers.data.readers.layout import Layout
from omg_transformers.data.readers.outlines import region_of_polygons
from omg_transformers.data.readers.pairs import files_by_name, subfolders
from omg_transformers.data.regions import encode_region, merge_regions, merge_stuff
from omg_transformers.data.sources import OnError, SampleError
from omg_transformers.processing.pictures import PICTURE_SUFFIXES
from omg_transformers.structures import Annotation, Sample, Segment

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from omg_transformers.labels import LabelSpace
    from omg_transformers.structures import RLE

_LOOKED_AT = 16
_ALL, _IGNORED = "all", "__ignore__"
# Half a pixel off at a radius of about 3000.
_CIRCLE_POINTS = 256
# "rotation" is what X-AnyLabeling calls a turned rectangle.
_OUTLINES = ("polygon", "rectangle", "oriented_rectangle", "rotation")
_WITHOUT_AREA = ("point", "points", "line", "linestrip")


def read_labelme(
    root: str | Path,
    split: str = _ALL,
    *,
    label_space: LabelSpace | None = None,
    on_error: OnError = "raise",
    names: Iterable[str] | Mapping[int, str] | None = None,
) -> LabelmeSource:
    """JSON files in the root ("all") or in folders (each a split), with pictures beside them or inside.

    Polygons, rectangles, circles and masks; shapes of one label and `group_id` are one object; points and lines have
    no area and are left out; "__ignore__" is void, "_background_" nothing. names: None: `labels.txt` or the like, else
    all labels that occur in any split, for which every file is opened once. Things unless a built-in space knows the
    name as stuff.
    """
    folder = Path(root) if split == _ALL else Path(root) / split
    paths = sorted(path for path in folder.glob("*.json") if mentions(path, '"shapes"'))
    if not paths:
        raise ValueError(f"{folder} holds no labelme JSON: expected one with `shapes` per picture")
    known = (read_names(Path(root)) or _labels_of(Path(root))) if names is None else names_by_id(names)
    known = {number: text for number, text in known.items() if not is_background(text) and text != _IGNORED}
    if not known:
        raise ValueError(f"{folder} names no classes: its files hold no shapes with a label. Pass names=[...]")
    own = named_classes(known, name=Path(root).resolve().name or "labelme")
    classes = in_label_space(own, label_space, where=folder)
    class_of = {text: classes.class_of[number] for number, text in known.items()}
    return LabelmeSource(paths, classes.label_space, class_of, name=str(folder), on_error=on_error)


def find_splits(root: Path) -> tuple[str, ...]:
    """The folders, or the root itself as "all", with a JSON of labelme's among the first."""
    return tuple(_ALL if folder == root else folder.name for folder in _folders(root))


class LabelmeSource(FileSource[Path]):
    """Pictures with hand-drawn shapes; see `read_labelme`."""

    parts = ("classes", "instances")

    def __init__(
        self,
        paths: list[Path],
        label_space: LabelSpace,
        class_of: Mapping[str, int],
        *,
        name: str,
        on_error: OnError = "raise",
    ) -> None:
        self._class_of = class_of
        super().__init__(paths, label_space, name=name, on_error=on_error)

    def read(self, record: Path) -> Sample:
        """One picture with its shapes."""
        content = _content(record)
        frame = _frame(content, record)
        size = frame_size(frame, name=record.stem)
        stated = (content.get("imageHeight"), content.get("imageWidth"))
        if None not in stated and stated != size:
            raise SampleError(
                f"the picture of {record} is {size[0]} high and {size[1]} wide, the file says {stated[0]} and "
                f"{stated[1]}: they do not belong together{turn_hint(frame, stated)}"
            )
        regions: dict[tuple[str, Any], list[RLE | None]] = {}
        for number, shape in enumerate(content["shapes"]):
            region = _region(shape, size, f"{record}: shape {number} ({shape.get('label')!r})")
            group = shape.get("group_id")
            # A shape without a group is alone: a negative float is no group of labelme's.
            regions.setdefault((str(shape.get("label")), -0.5 - number if group is None else group), []).append(region)
        annotation = self._annotation({key: merge_regions(parts) for key, parts in regions.items()}, size, record)
        return Sample(record.stem, (frame,), annotation, self.label_space, self.tasks)

    def pictures_not_listed(self) -> list[str]:
        """Names of the pictures in the folder that no file annotates."""
        known = {path.stem for path in self.records}
        for path in self.records:
            with contextlib.suppress(SampleError):
                known.add(PureWindowsPath(str(_content(path).get("imagePath"))).stem)
        return sorted(path.name for stem, path in files_by_name(Path(self.name)).items() if stem not in known)

    def _annotation(
        self, regions: Mapping[tuple[str, Any], RLE | None], size: tuple[int, int], record: Path
    ) -> Annotation:
        segments: list[Segment] = []
        void = None
        for (label, _), region in regions.items():
            if label == _IGNORED:
                void = merge_regions([void, region])
            elif is_background(label) or region is None:
                continue
            elif label not in self._class_of:
                raise SampleError(f"{record} has the label {label!r}, which is not among {list(self._class_of)[:12]}")
            else:
                segments.append(Segment(self._class_of[label], (region,), len(segments) + 1))
        is_thing = tuple(self.label_space.is_thing)
        return Annotation(size, is_thing, merge_stuff(segments, is_thing), (void,))


def _content(record: Path) -> dict[str, Any]:
    """A file with its shapes. Raises SampleError."""
    content = read_sample_object(record, ("shapes",), title="labelme")
    try:
        check_rows(content["shapes"], {"label": (str, int)}, where=record, noun="shape")
    except ValueError as error:
        raise SampleError(str(error)) from error
    return content


def _frame(content: dict[str, Any], record: Path) -> Path | bytes:
    """The picture where the file says, of that name beside it, inside it, or beside it and called like the file."""
    path = record.parent / str(content.get("imagePath") or f"{record.stem}.jpg").replace("\\", "/")
    # The path may be one of another computer.
    for place in (path, record.parent / path.name):
        if place.is_file():
            return place
    if content.get("imageData"):
        return _decoded(content["imageData"], f"{record}: imageData")
    suffixes = (path.suffix, *sorted(PICTURE_SUFFIXES))
    return next((place for suffix in suffixes if (place := record.with_suffix(suffix)).is_file()), path)


def _region(shape: dict[str, Any], size: tuple[int, int], where: str) -> RLE | None:
    kind = shape.get("shape_type") or "polygon"
    if kind in _WITHOUT_AREA:
        return None
    try:
        points = np.asarray(shape.get("points"), np.float64).reshape(-1, 2)
    except (TypeError, ValueError) as error:
        raise SampleError(f"{where} has no points: expected a list of [x, y]") from error
    if kind == "mask":
        return _pasted(shape, points, size, where)
    if kind in ("rectangle", "circle") and len(points) == 2:
        points = _rectangle(points) if kind == "rectangle" else _circle(points)
    elif kind not in _OUTLINES:
        raise SampleError(f"{where} is a {kind!r} of {len(points)} points: expected a polygon, rectangle or circle")
    return region_of_polygons([points.ravel()], size, where=where)


def _rectangle(points: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    (left, top), (right, bottom) = points
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def _circle(points: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """points: the centre, and one on the line."""
    radius = math.dist(points[0], points[1])
    angles = np.arange(_CIRCLE_POINTS) * (2 * math.pi / _CIRCLE_POINTS)
    return points[0] + radius * np.stack([np.cos(angles), np.sin(angles)], -1)


def _pasted(shape: dict[str, Any], points: np.ndarray[Any, Any], size: tuple[int, int], where: str) -> RLE | None:
    """A mask as a small PNG; the first point is its top left."""
    try:
        with Image.open(io.BytesIO(_decoded(shape.get("mask"), where))) as picture:
            patch = np.asarray(picture.convert("L")) > 0
    except (OSError, SyntaxError) as error:
        raise SampleError(f"{where} has a mask that is no picture ({error})") from error
    left, top = (round(value) for value in points[0].tolist())
    canvas = np.zeros(size, np.bool_, order="F")
    rows, columns = (max(0, -top), max(0, -left))
    part = patch[rows : size[0] - top, columns : size[1] - left]
    if not part.size:
        raise SampleError(f"{where} lies outside the picture of {size[0]} x {size[1]}")
    canvas[top + rows : top + rows + part.shape[0], left + columns : left + columns + part.shape[1]] = part
    return encode_region(canvas)


def _decoded(text: Any, where: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise SampleError(f"{where} is not base64 ({error})") from error


def _labels_of(root: Path) -> dict[int, str]:
    """The labels of all splits, so that a class has one number in all of them."""
    labels = set()
    for path in (path for folder in _folders(root) for path in sorted(folder.glob("*.json"))):
        # What is wrong with a file is told when its sample is read.
        with contextlib.suppress(SampleError):
            shapes = _content(path)["shapes"]
            labels |= {str(shape["label"]) for shape in shapes if shape.get("shape_type") not in _WITHOUT_AREA}
    return dict(enumerate(sorted(labels)))


def _folders(root: Path) -> Iterator[Path]:
    for folder in (root, *subfolders(root)):
        if any(mentions(path, '"shapes"', '"imagePath"') for path in sorted(folder.glob("*.json"))[:_LOOKED_AT]):
            yield folder


LAYOUT = Layout("labelme", "labelme", find_splits, read_labelme)
