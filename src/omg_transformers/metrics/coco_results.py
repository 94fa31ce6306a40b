"""COCO files scored against each other: the truth (instances JSON) and results (a JSON list)."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pycocotools import mask as coco_mask

from omg_transformers.metrics.average_precision import check_kind, group_records, named_figures
from omg_transformers.metrics.boundary import DILATION_RATIO
from omg_transformers.metrics.coco_backends import OWN_BACKEND, choose_backend, run_backend
from omg_transformers.metrics.detection_matching import COCO_RULES, MatchTable, figures_per_class
from omg_transformers.metrics.run_lengths import areas_of, counts_as_bytes, faults_of_counts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

Source = str | Path | dict[str, Any] | list[Any]


@dataclass(frozen=True, slots=True)
class DetectionScores:
    """What a file of results is worth.

    figures: the twelve by name, NaN where undefined. category_ids: (K,) sorted, the classes of all tables.
    precision: (T, R, K, A, M), recall: (T, K, A, M): 10 IoUs, 101 recalls, 4 areas, 3 numbers of results; -1 undefined.
    num_samples: pictures or videos of the truth; num_unanswered: those without a result.
    notes: what was left out or treated in an odd way of the reference, one line each, naming ids.
    """

    kind: str
    figures: dict[str, float]
    category_ids: tuple[int, ...]
    category_names: tuple[str, ...]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    backend: str
    num_samples: int
    num_unanswered: int
    notes: tuple[str, ...] = ()

    def per_class(self) -> dict[str, NDArray[np.float64]]:
        """`ap`, `ap50`, `ap75`, `ar100`, each (K,); NaN for classes without a true object."""
        return figures_per_class(self.precision, self.recall)


def score_coco_results(
    truth: Source,
    results: Source,
    kind: str = "segm",
    *,
    backend: str = "auto",
    dilation_ratio: float = DILATION_RATIO,
) -> DetectionScores:
    """COCO's AP and AR of a results file; equal to COCOeval (boundaries: to its authors' program) to 1e-9.

    truth, results: paths, or what the JSON files hold. kind: "segm", "bbox" or "boundary". backend: "pycocotools",
    "hotcoco", "faster_coco_eval", or "auto": the fastest that is installed and equal for these files. Raises
    ValueError naming file and id; an empty list of results scores 0 where COCO's own program stops.
    """
    check_kind(kind)
    files = CocoFiles(truth, results, kind)
    chosen = choose_backend(
        backend, kind, has_void_id=files.has_void_id, has_ignored=files.has_ignored, has_results=bool(files.results)
    )
    if chosen == OWN_BACKEND:
        precision, recall = _accumulate(files, dilation_ratio)
    else:
        # As given: a package reads files itself, faster than it takes objects of Python.
        precision, recall = run_backend(chosen, truth, results, kind, dilation_ratio)
    for note in files.notes:
        warnings.warn(note, stacklevel=2)
    return DetectionScores(
        kind,
        named_figures(precision, recall),
        tuple(files.categories),
        tuple(files.categories.values()),
        precision,
        recall,
        chosen,
        len(files.images),
        len(files.images.keys() - {record["image_id"] for record in files.results}),
        tuple(files.notes),
    )


class CocoFiles:
    """Both files, checked: records by picture with "category_id" as index of the sorted categories."""

    def __init__(self, truth: Source, results: Source, kind: str) -> None:
        self.kind = kind
        self.notes: list[str] = []
        dataset, self.truth_name = read_json(truth, "truth")
        rows, self.results_name = read_json(results, "results")
        self.images, self.categories = read_tables(dataset, self.truth_name, "images")
        self.labels = {number: label for label, number in enumerate(self.categories)}
        self.truths = self._read_truths(list_of(dataset, "annotations", self.truth_name))
        self.results = self._read_results(results_list(rows, self.results_name))

    @property
    def has_void_id(self) -> bool:
        """An annotation has id 0, which COCOeval takes for "unmatched"."""
        return any(record["id"] == 0 for record in self.truths)

    @property
    def has_ignored(self) -> bool:
        """An annotation that is no crowd is flagged "ignore"."""
        return any(record["ignore"] and not record["iscrowd"] for record in self.truths)

    def _read_truths(self, annotations: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        name = self.truth_name
        check_unique((record.get("id") for record in annotations), name, "annotations")
        records = []
        for annotation in annotations:
            place = f"{name}: annotation {annotation.get('id')!r}"
            self._check_known(annotation, place)
            record = {
                "id": annotation.get("id"),
                "image_id": annotation["image_id"],
                "category_id": self.labels[annotation["category_id"]],
                "area": number_of(annotation, "area", place),
                "iscrowd": bool(annotation.get("iscrowd", 0)),
                "ignore": bool(annotation.get("ignore", 0)),
            }
            self._add_shape(record, annotation, place)
            records.append(record)
        self._check_rles(records, [f"{name}: annotation {record['id']!r}" for record in records])
        zero = [record["image_id"] for record in records if record["id"] == 0]
        if zero:
            self.notes.append(
                f"{name}: an annotation of picture {zero[0]} has id 0: as in COCO's program, finding it does not count"
            )
        return records

    def _read_results(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        name = self.results_name
        # COCO's program looks at the first result only; a mixed file stops it.
        has_box = bool(rows) and bool(rows[0].get("bbox"))
        records, places = [], []
        foreign: dict[Any, list[int]] = {}
        for index, row in enumerate(rows):
            place = f"{name}: result {index} (image {row.get('image_id')!r}, category {row.get('category_id')!r})"
            if row.get("image_id") not in self.images:
                raise ValueError(f"{place}: {self.truth_name} has no image {row.get('image_id')!r}")
            score = number_of(row, "score", place)
            if row.get("category_id") not in self.labels:
                foreign.setdefault(row.get("category_id"), []).append(index)
                continue
            record = {"image_id": row["image_id"], "category_id": self.labels[row["category_id"]], "score": score}
            if bool(row.get("bbox")) != has_box:
                raise ValueError(
                    f"{place}: the first result has {'a' if has_box else 'no'} bbox, this one not so: give all or none"
                )
            self._add_shape(record, row, place, is_result=True)
            records.append(record)
            places.append(place)
        self._check_rles(records, places)
        for number, indices in foreign.items():
            self.notes.append(
                f"{name}: {len(indices)} results of category {number!r}, which {self.truth_name} does not have, "
                f"are left out (result {indices[0]} first)"
            )
        self._finish_areas(records, has_box)
        return records

    def _check_known(self, annotation: dict[str, Any], place: str) -> None:
        if annotation.get("image_id") not in self.images:
            raise ValueError(f"{place}: there is no image {annotation.get('image_id')!r}")
        if annotation.get("category_id") not in self.labels:
            raise ValueError(f"{place}: there is no category {annotation.get('category_id')!r}")

    def _add_shape(self, record: dict[str, Any], row: dict[str, Any], place: str, *, is_result: bool = False) -> None:
        """Add the box, the mask, or both, as the kind needs them."""
        box, shape = row.get("bbox"), row.get("segmentation")
        if box:
            if len(box) != 4 or not all(isinstance(side, int | float) and math.isfinite(side) for side in box):
                raise ValueError(f"{place}: bbox is {box}: expected four numbers, x, y, width, height")
            record["bbox"] = box
        if self.kind == "bbox" and box:
            return
        if not shape and box and is_result:
            x, y, width, height = box
            shape = [[x, y, x, y + height, x + width, y + height, x + width, y]]
        if not shape or (self.kind == "bbox" and not is_result):
            raise ValueError(f"{place} has no {'bbox' if self.kind == 'bbox' else 'segmentation'}")
        record["segmentation"] = rle_of(shape, self.images[row["image_id"]], place)

    def _check_rles(self, records: Sequence[dict[str, Any]], places: Sequence[str]) -> None:
        kept = [(record, place) for record, place in zip(records, places, strict=True) if "segmentation" in record]
        check_counts([record["segmentation"] for record, _ in kept], [place for _, place in kept])
        odd = [
            (place, tuple(record["segmentation"]["size"]), self.images[record["image_id"]])
            for record, place in kept
            if self.images[record["image_id"]] not in (None, tuple(record["segmentation"]["size"]))
        ]
        if odd:
            place, size, expected = odd[0]
            more = f" (and {len(odd) - 1} more masks)" if len(odd) > 1 else ""
            self.notes.append(f"{place}: its mask has size {size}, the picture {expected}: it matches nothing{more}")

    def _finish_areas(self, records: Sequence[dict[str, Any]], has_box: bool) -> None:
        if has_box:
            for record in records:
                record["area"] = record["bbox"][2] * record["bbox"][3]
            return
        areas = areas_of([record["segmentation"] for record in records])
        for record, area in zip(records, areas.tolist(), strict=True):
            record["area"] = area
            if self.kind == "bbox":
                record["bbox"] = coco_mask.toBbox(record["segmentation"]).tolist()


def read_json(source: Source, name: str) -> tuple[Any, str]:
    """The content of a JSON file, or what was given in its place, and a name for messages."""
    if not isinstance(source, str | Path):
        return source, name
    path = Path(source)
    if not path.is_file():
        raise ValueError(f"{name} is {str(path)!r}: there is no such file")
    try:
        return json.loads(path.read_bytes()), path.name
    except ValueError as error:
        raise ValueError(f"{path}: not a JSON file ({error})") from error


def read_tables(dataset: Any, name: str, pictures: str) -> tuple[dict[Any, tuple[int, int] | None], dict[Any, str]]:
    """Sizes (height, width) of the pictures or videos by id (None: not given), names of the categories by sorted id."""
    images, categories = (list_of(dataset, key, name) for key in (pictures, "categories"))
    for key, rows in ((pictures, images), ("categories", categories)):
        check_unique((row.get("id") for row in rows), name, key)
    if not categories:
        raise ValueError(f"{name} has no categories")
    sizes = {
        row["id"]: (int(row["height"]), int(row["width"])) if row.get("height") and row.get("width") else None
        for row in images
    }
    ordered = sorted(categories, key=lambda row: row["id"])
    return sizes, {row["id"]: str(row.get("name", row["id"])) for row in ordered}


def describe_json(content: Any) -> str:
    """What a JSON file holds, for errors: "an object with images, annotations"."""
    if isinstance(content, dict):
        return f"an object with {', '.join(map(str, list(content)[:6])) or 'nothing'}"
    if isinstance(content, list):
        return f"a list of {len(content)} entries{f', the first {str(content[0])[:60]}' if content else ''}"
    return f"{str(content)[:60]!r}"


def list_of(dataset: Any, key: str, name: str) -> list[dict[str, Any]]:
    """A list of objects out of the truth's JSON."""
    rows = dataset.get(key) if isinstance(dataset, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(
            f"{name} holds {describe_json(dataset)}: expected a JSON object with a list of objects {key!r}"
        )
    if rows and "segments_info" in rows[0]:
        raise ValueError(f"{name} holds panoptic annotations (segments_info): expected one annotation per object")
    return rows


def results_list(rows: Any, name: str) -> list[dict[str, Any]]:
    """The results' JSON, checked to be a list of objects."""
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{name} holds {describe_json(rows)}: expected a JSON list of results")
    return rows


def check_unique(numbers: Iterable[Any], name: str, key: str) -> None:
    """Refuse missing and repeated ids."""
    seen: set[Any] = set()
    for number in numbers:
        if number is None:
            raise ValueError(f"{name}: one of its {key} has no id")
        if number in seen:
            raise ValueError(f"{name}: {key} has id {number!r} twice")
        seen.add(number)


def number_of(row: dict[str, Any], key: str, place: str) -> float:
    """A finite number out of a record."""
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not math.isfinite(value):
        raise ValueError(f"{place}: {key} is {value!r}: expected a number")
    return float(value)


def rle_of(shape: Any, size: tuple[int, int] | None, place: str) -> dict[str, Any]:
    """A compressed RLE from polygons, plain runs or an RLE."""
    if isinstance(shape, list):
        if size is None:
            raise ValueError(f"{place} is a polygon, and its picture has no height and width")
        if not all(isinstance(part, list) and len(part) >= 6 and len(part) % 2 == 0 for part in shape):
            raise ValueError(f"{place}: a polygon needs at least three points x, y")
        merged: dict[str, Any] = coco_mask.merge(coco_mask.frPyObjects(shape, *size))
        return merged
    if not isinstance(shape, dict) or len(shape.get("size", ())) != 2 or "counts" not in shape:
        raise ValueError(f"{place}: segmentation is {shape!r}: expected polygons or an RLE with size and counts")
    height, width = (int(side) for side in shape["size"])
    if isinstance(shape["counts"], list):
        if sum(shape["counts"]) != height * width or min(shape["counts"], default=0) < 0:
            raise ValueError(f"{place}: counts covers {sum(shape['counts'])} of {height * width} pixels")
        plain: dict[str, Any] = coco_mask.frPyObjects(
            {"size": [height, width], "counts": shape["counts"]}, height, width
        )
        return plain
    return {"size": [height, width], "counts": counts_as_bytes(shape["counts"]) or b""}


def check_counts(rles: Sequence[dict[str, Any]], places: Sequence[str]) -> None:
    """Refuse truncated and foreign run lengths, naming the first."""
    faults = faults_of_counts([rle["counts"] for rle in rles], [rle["size"][0] * rle["size"][1] for rle in rles])
    if faults:
        first = min(faults)
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise ValueError(f"{places[first]}: {faults[first]}{more}")


def _accumulate(files: CocoFiles, dilation_ratio: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    table = MatchTable(len(files.categories), COCO_RULES)
    by_image: dict[Any, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {image: ([], []) for image in files.images}
    for side, records in enumerate((files.truths, files.results)):
        for record in records:
            by_image[record["image_id"]][side].append(record)
    for image in sorted(by_image):
        table.add(group_records(*by_image[image], files.kind, dilation_ratio=dilation_ratio))
    return table.accumulate()
