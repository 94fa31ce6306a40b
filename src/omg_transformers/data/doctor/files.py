"""What only the JSON of a data set tells: ids used twice, outlines that leave the picture, stated boxes and areas."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from omg_transformers.data.doctor.classes import is_void_name
from omg_transformers.data.doctor.samples import Fault, segment_name
from omg_transformers.data.regions import region_area
from omg_transformers.formats.atomic_file import read_json
from omg_transformers.metrics.label_png import listed
from omg_transformers.ops.masks import rle_box
from omg_transformers.processing.pictures import PICTURE_SUFFIXES

if TYPE_CHECKING:
    from omg_transformers.data.sources import SampleSource
    from omg_transformers.structures import RLE, Sample

# Outlines are drawn between pixels, so a mask may start or end a pixel away, and large ones are drawn roughly.
SLACK, SLACK_SHARE = 3.0, 0.1
AREA_SLACK = 0.25


class Stated(NamedTuple):
    """What is stated of one object. rows: per frame its box (x, y, width, height) and area, None where unsaid."""

    category_id: Any
    rows: list[tuple[Any, Any]]


@dataclass(slots=True)
class JsonFacts:
    """What one annotation file states. faults: with the id of their sample, "" when they are about the whole file.

    stated: by sample id and object id. used, listed: category ids of annotations and of the list.
    """

    faults: list[tuple[str, Fault]] = field(default_factory=list)
    stated: dict[str, dict[int, Stated]] = field(default_factory=lambda: defaultdict(dict))
    used: Counter[int] = field(default_factory=Counter)
    listed: set[int] = field(default_factory=set)

    def check(self, sample: Sample) -> Iterator[Fault]:
        """Stated boxes and areas against the masks of a sample; one fault of each kind per object."""
        stated = self.stated.get(sample.sample_id, {})
        numbers = Counter(entry.category_id for entry in stated.values())
        for place, segment in enumerate(sample.annotation.segments):
            entry = stated.get(segment.track_id)
            if entry is None or len(entry.rows) != len(segment.masks):
                continue
            # Readers join all stuff of one class.
            label = segment.category_id
            if label >= 0 and not sample.annotation.is_thing[label] and numbers[entry.category_id] > 1:
                continue
            kinds = set()
            for frame, (rle, (box, area)) in enumerate(zip(segment.masks, entry.rows, strict=True)):
                for kind, text in _disagreements(rle, box, area):
                    if kind not in kinds:
                        kinds.add(kind)
                        yield Fault(kind, f"{segment_name(sample, place)}: {text}", frame, place)


def read_facts(source: SampleSource) -> JsonFacts | None:
    """What the JSON of a source states, None when it has none in COCO's form (pictures or videos)."""
    path = Path(str(getattr(source, "name", "")))
    if path.suffix != ".json" or not path.is_file():
        return None
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("annotations"), list):
        return None
    facts = JsonFacts()
    names = {entry["id"]: str(entry.get("name")) for entry in _rows(content, "categories") if "id" in entry}
    facts.listed = {entry["id"] for entry in _rows(content, "categories") if isinstance(entry.get("id"), int)}
    if "videos" in content:
        _read_videos(content, facts)
    elif "images" in content:
        _read_pictures(content, facts)
        _check_folder(content, getattr(source, "picture_folder", None), facts)
    # Readers find classes by supercategories as well, so that the label space may not show the name.
    for number, name in names.items():
        if is_void_name(name) and facts.used[number] and source.label_space.find(name) is None:
            text = f"the category {name!r} (id {number}) has {facts.used[number]} segments"
            facts.faults.append(("", Fault("void_as_class", text)))
    return facts


def _rows(content: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    rows = content.get(key)
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _read_pictures(content: Mapping[str, Any], facts: JsonFacts) -> None:
    pictures = {row.get("id"): row for row in _rows(content, "images")}
    annotations = _rows(content, "annotations")
    for name, count in Counter(str(row.get("file_name")) for row in pictures.values()).items():
        if count > 1:
            facts.faults.append(("", Fault("duplicated_picture", f"{name} is listed {count} times")))
    if any("segments_info" in row for row in annotations):
        for row in annotations:
            for info in row.get("segments_info") or ():
                _state(facts, str(row.get("image_id")), info)
        return
    _check_annotation_ids(annotations, "image_id", facts)
    for row in annotations:
        sample = str(row.get("image_id"))
        _state(facts, sample, row)
        picture = pictures.get(row.get("image_id"), {})
        beyond = _reach(row.get("segmentation"), picture.get("height"), picture.get("width"))
        if beyond > SLACK:
            text = f"annotation {row.get('id')} reaches {beyond:.0f} pixels beyond the border"
            facts.faults.append((sample, Fault("polygon_outside", text)))


def _read_videos(content: Mapping[str, Any], facts: JsonFacts) -> None:
    names: dict[Any, str] = {}
    for row in _rows(content, "videos"):
        files = row.get("file_names") or [""]
        names[row.get("id")] = Path(files[0]).parent.as_posix() if "/" in str(files[0]) else str(row.get("id"))
    annotations = _rows(content, "annotations")
    for row in annotations:
        masks = row.get("segmentations")
        category, number = row.get("category_id"), row.get("id")
        if isinstance(category, int):
            facts.used[category] += 1
        if not isinstance(masks, list) or not isinstance(number, int):
            continue
        boxes, areas = (_per_frame(row.get(key), len(masks)) for key in ("bboxes", "areas"))
        rows = list(zip(boxes, areas, strict=True))
        facts.stated[names.get(row.get("video_id"), "")][number] = Stated(category, rows)


def _check_annotation_ids(annotations: Sequence[Mapping[str, Any]], owner: str, facts: JsonFacts) -> None:
    first: dict[Any, Any] = {}
    for row in annotations:
        number = row.get("id")
        if number is None:
            continue
        if number in first:
            text = f"annotation id {number} is used again, first for picture {first[number]}"
            facts.faults.append((str(row.get(owner)), Fault("duplicated_id", text)))
        else:
            first[number] = row.get(owner)


def _check_folder(content: Mapping[str, Any], folder: Path | None, facts: JsonFacts) -> None:
    """Pictures that lie there but are not in the file."""
    if folder is None or not folder.is_dir():
        return
    known = {Path(str(row.get("file_name", "")).replace("\\", "/")).name for row in _rows(content, "images")}
    known |= {Path(str(row["coco_url"])).name for row in _rows(content, "images") if row.get("coco_url")}
    places = {(folder / str(row.get("file_name", ""))).parent for row in _rows(content, "images")}
    # Masks may lie beside the pictures, as PNGs beside JPEGs.
    suffixes = {".jpg", ".jpeg"} | ({Path(name).suffix.lower() for name in known} & PICTURE_SUFFIXES)
    there = [path for place in places if place.is_dir() for path in place.iterdir()]
    pictures = {path.name for path in there if path.suffix.lower() in suffixes and not path.name.startswith(".")}
    if pictures - known:
        text = f"{len(pictures - known)} in {folder}: {listed(sorted(pictures - known))}"
        facts.faults.append(("", Fault("picture_not_listed", text)))


def _state(facts: JsonFacts, sample: str, row: Mapping[str, Any]) -> None:
    category, number = row.get("category_id"), row.get("id")
    if isinstance(category, int):
        facts.used[category] += 1
    if isinstance(number, int) and ("bbox" in row or "area" in row):
        facts.stated[sample][number] = Stated(category, [(row.get("bbox"), row.get("area"))])


def _per_frame(values: Any, length: int) -> list[Any]:
    return values if isinstance(values, list) and len(values) == length else [None] * length


def _reach(segmentation: Any, height: Any, width: Any) -> float:
    """How far polygons go beyond the picture, in pixels; 0 for what is no list of polygons."""
    if not isinstance(segmentation, list) or not isinstance(height, int) or not isinstance(width, int):
        return 0.0
    beyond = 0.0
    for polygon in segmentation:
        try:
            points = np.asarray(polygon, np.float64).reshape(-1, 2)
        except (TypeError, ValueError):
            continue
        if len(points):
            beyond = max(beyond, float(-points.min()), float((points - (width, height)).max()))
    return beyond


def _disagreements(rle: RLE | None, box: Any, area: Any) -> Iterator[tuple[str, str]]:
    found_area = region_area(rle)
    if isinstance(box, (list, tuple)) and len(box) == 4 and _are_numbers(box):
        left, top, right, bottom = rle_box(rle)
        stated = np.array([box[0], box[1], box[0] + box[2], box[1] + box[3]], np.float64)
        slack = SLACK + SLACK_SHARE * max(right - left, bottom - top)
        if rle is not None and np.abs(stated - (left, top, right, bottom)).max() > slack:
            ours = [left, top, right - left, bottom - top]
            yield "box_disagrees", f"stated x, y, width, height {_short(box)}, mask {_short(ours)}"
    if _are_numbers([area]):
        # Pixels on the outline count whole or not at all: as many as the mask is long around.
        slack = AREA_SLACK * found_area + 4 * found_area**0.5
        if rle is not None and abs(float(area) - found_area) > slack:
            yield "area_disagrees", f"stated area {float(area):.0f}, mask {found_area}"


def _are_numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)


def _short(values: Sequence[float]) -> str:
    return " ".join(f"{value:.0f}" for value in values)
