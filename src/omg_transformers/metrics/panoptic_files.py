"""Panoptic quality of predictions on disk, in the COCO panoptic format: a JSON file and a folder of PNG id maps."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from omg_transformers.metrics.boundary import BoundaryPanopticQuality
from omg_transformers.metrics.label_png import describe_folder, listed, pngs_of, require_folder
from omg_transformers.metrics.panoptic import VOID, PanopticQuality, Scene, count_overlaps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray

ID_BITS = 0xFFFFFF


@dataclass(frozen=True, slots=True)
class PanopticScore:
    """The counts of a whole folder; class i of `metric` is the category `category_ids[i]` of the JSON.

    notes: what was left out or looked odd, one sentence each.
    """

    metric: PanopticQuality
    category_ids: tuple[int, ...]
    category_names: tuple[str, ...]
    num_pictures: int
    notes: tuple[str, ...] = ()

    def compute(self) -> dict[str, float]:
        """The figures of the metric, see `PanopticQuality.compute`."""
        return self.metric.compute()

    def per_class(self) -> dict[str, NDArray[Any]]:
        """Columns of the metric, see `PanopticQuality.per_class`; row i is the category `category_ids[i]`."""
        return self.metric.per_class()


class PanopticFiles:
    """Truth and predictions in the COCO panoptic format, checked against each other; pictures are read one by one.

    gt_folder, pred_folder: folders of the PNGs, by default named like the JSON files. Raises ValueError on everything
    that contradicts itself, and names the file and the id.
    """

    def __init__(
        self,
        gt_json: Path | str,
        pred_json: Path | str,
        gt_folder: Path | str | None = None,
        pred_folder: Path | str | None = None,
    ) -> None:
        self.gt_json, self.pred_json = Path(gt_json), Path(pred_json)
        self.gt_folder = Path(gt_folder) if gt_folder is not None else self.gt_json.with_suffix("")
        self.pred_folder = Path(pred_folder) if pred_folder is not None else self.pred_json.with_suffix("")
        for folder, name in ((self.gt_folder, "gt_folder"), (self.pred_folder, "pred_folder")):
            require_folder(folder, name, "the folder that holds the PNG id maps")
        truth = read_annotations(self.gt_json)
        self.categories = check_categories(truth.get("categories"), self.gt_json)
        self.truths = _by_picture(truth, self.gt_json)
        self.predictions = _by_picture(read_annotations(self.pred_json), self.pred_json)
        missing = [identity for identity in self.truths if identity not in self.predictions]
        if missing:
            raise ValueError(
                f"{self.pred_json} has no prediction for {len(missing)} of {len(self.truths)} pictures, first for "
                f"image_id {missing[0]}: give one for each, with an empty segments_info where nothing was found"
            )
        if not self.truths:
            raise ValueError(f"{self.gt_json} has no annotations: there is nothing to score")
        self.notes: list[str] = []
        unknown = [identity for identity in self.predictions if identity not in self.truths]
        if unknown:
            self.notes.append(
                f"{self.pred_json}: {len(unknown)} predictions left out, {self.gt_json} does not know their pictures "
                f"(image_id {listed(unknown)})"
            )
        self.image_ids = list(self.truths)
        self._check_files()
        self.labels = {category["id"]: index for index, category in enumerate(self.categories)}

    def _check_files(self) -> None:
        """Refuse missing PNGs before the first is read; note predicted ones that no picture asks for."""
        names = {image_id: _file_name(self.predictions[image_id], self.pred_json) for image_id in self.image_ids}
        true_names = {image_id: _file_name(self.truths[image_id], self.gt_json) for image_id in self.image_ids}
        for folder, wanted in ((self.gt_folder, true_names), (self.pred_folder, names)):
            missing = [(image_id, name) for image_id, name in wanted.items() if not (folder / name).is_file()]
            if missing:
                raise ValueError(
                    f"{folder} lacks {len(missing)} of {len(wanted)} PNGs that the JSON file names, first "
                    f"{missing[0][1]} of image_id {missing[0][0]}"
                )
        asked = {(self.pred_folder / name) for name in names.values()}
        extra = [name for name, path in pngs_of(self.pred_folder).items() if path not in asked]
        if extra:
            self.notes.append(f"{self.pred_folder}: {len(extra)} PNGs left out, no scored picture has {listed(extra)}")

    def __len__(self) -> int:
        return len(self.image_ids)

    def count(self, metric: PanopticQuality, index: int) -> None:
        """Read picture number `index` and count it."""
        image_id = self.image_ids[index]
        truth, prediction = self.truths[image_id], self.predictions[image_id]
        truth_path = self.gt_folder / truth["file_name"]
        prediction_path = self.pred_folder / prediction["file_name"]
        truth_ids, predicted_ids = _read_packed(truth_path), _read_packed(prediction_path)
        if truth_ids.shape != predicted_ids.shape:
            raise ValueError(
                f"image_id {image_id}: {prediction_path} is {predicted_ids.shape[0]} x {predicted_ids.shape[1]}, "
                f"{truth_path} is {truth_ids.shape[0]} x {truth_ids.shape[1]} (height x width): resize the prediction"
            )
        truth_classes, predicted_classes = (
            segment_classes(record["segments_info"], self.labels, f"{source}, image_id {image_id}")
            for record, source in ((truth, self.gt_json), (prediction, self.pred_json))
        )
        segments = truth["segments_info"]
        pairs = count_overlaps(predicted_ids, truth_ids, bits=ID_BITS)
        note = check_same_ids(pairs[0].tolist(), truth_classes, f"{truth_path}, image_id {image_id}", is_truth=True)
        if note:
            self.notes.append(note)
        where = f"{prediction_path}, image_id {image_id}"
        check_same_ids(pairs[1].tolist(), predicted_classes, where, is_truth=False)
        if isinstance(metric, BoundaryPanopticQuality):
            truth_ids, predicted_ids = truth_ids & np.uint32(ID_BITS), predicted_ids & np.uint32(ID_BITS)
        # panopticapi believes the areas written in the truth's JSON, even where the PNG has others.
        areas = {segment["id"]: segment["area"] for segment in segments if "area" in segment}
        metric.update_scene(
            Scene(
                predicted_ids,
                truth_ids,
                predicted_classes,
                truth_classes,
                crowd_ids=[segment["id"] for segment in segments if segment.get("iscrowd")],
                truth_areas=areas if len(areas) == len(segments) else None,
                pairs=pairs,
            )
        )


def segment_classes(segments: Iterable[dict[str, Any]], labels: Mapping[Any, int], where: str) -> dict[int, int]:
    """The class of each segment id of one picture, out of `segments_info`. where: file and picture, for errors.

    labels: class index by category id. Refuses ids outside 1 to 2**24 - 1, repeated ones, unknown categories and areas
    below one pixel.
    """
    classes: dict[int, int] = {}
    for segment in segments:
        identity, category = segment.get("id"), segment.get("category_id")
        if not isinstance(identity, int) or not VOID < identity <= ID_BITS:
            raise ValueError(f"{where}: segment id {identity!r}: expected a whole number from 1 to {ID_BITS}")
        if identity in classes:
            raise ValueError(f"{where}: segment id {identity} occurs twice: give every segment its own id")
        if category not in labels:
            raise ValueError(
                f"{where}: segment {identity} has unknown category_id {category!r}: the truth knows {len(labels)} "
                f"categories, {', '.join(map(str, list(labels)[:8]))} .."
            )
        if segment.get("area", 1) < 1:
            raise ValueError(f"{where}: segment {identity} has area {segment['area']}: expected at least 1 pixel")
        classes[identity] = labels[category]
    return classes


def check_same_ids(ids: Iterable[int], classes: Mapping[int, int], where: str, *, is_truth: bool) -> str | None:
    """Refuse ids of a PNG that `segments_info` does not list, and the other way round. where: file and picture.

    Of the truth, listed ids without a pixel are no error: returns a note.
    """
    found = set(ids) - {VOID}
    unknown = sorted(found - classes.keys())
    if unknown:
        raise ValueError(
            f"{where}: the PNG holds id {unknown[0]}, which segments_info does not list ({len(unknown)} such ids): "
            "list every id, 0 is void"
        )
    absent = sorted(classes.keys() - found)
    if absent and not is_truth:
        raise ValueError(
            f"{where}: segments_info lists id {absent[0]}, which has no pixel in the PNG ({len(absent)} such ids): "
            "leave out segments that are wholly covered"
        )
    if absent:
        return f"{where}: {len(absent)} segments have no pixel in the PNG and count as missed (id {listed(absent)})"
    return None


def score_panoptic_files(
    gt_json: Path | str,
    pred_json: Path | str,
    gt_folder: Path | str | None = None,
    pred_folder: Path | str | None = None,
    *,
    dilation_ratio: float | None = None,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> PanopticScore:
    """Score a folder of panoptic predictions as panopticapi does, reading one picture at a time.

    dilation_ratio: compute boundary PQ with bands of this share of the diagonal (0.02 as published). progress: wraps
    the loop over the pictures, e.g. `tqdm`. Raises ValueError as `PanopticFiles`; warns of everything left out.
    """
    files = PanopticFiles(gt_json, pred_json, gt_folder, pred_folder)
    is_thing = tuple(bool(category["isthing"]) for category in files.categories)
    if dilation_ratio is None:
        metric = PanopticQuality(len(is_thing), is_thing)
    else:
        metric = BoundaryPanopticQuality(len(is_thing), is_thing, dilation_ratio=dilation_ratio)
    for index in progress(range(len(files))):
        files.count(metric, index)
    for note in files.notes:
        warnings.warn(note, stacklevel=2)
    names = tuple(str(category.get("name", category["id"])) for category in files.categories)
    return PanopticScore(metric, tuple(files.labels), names, len(files), tuple(files.notes))


def read_panoptic_png(path: Path | str) -> NDArray[np.uint32]:
    """The ids (H, W) of a panoptic PNG: red + 256 green + 65536 blue, 0 = void."""
    return _read_packed(path) & np.uint32(ID_BITS)


def _read_packed(path: Path | str) -> NDArray[np.uint32]:
    """As `read_panoptic_png`, but the highest byte of each pixel says nothing."""
    try:
        with Image.open(path) as picture:
            if picture.mode not in ("RGB", "RGBA"):
                raise ValueError(
                    f"{path} has mode {picture.mode}: expected the ids as an RGB picture, R + 256 G + 65536 B"
                )
            # Pillow keeps four bytes per pixel: taking them as they lie needs no arithmetic on three planes.
            packed = picture.tobytes("raw", "RGBX" if picture.mode == "RGB" else "RGBA")
            width, height = picture.size
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist: the JSON file names it") from None
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path} cannot be read as a picture: {error}") from error
    return np.frombuffer(packed, dtype="<u4").reshape(height, width)


def read_annotations(path: Path) -> dict[str, Any]:
    """The content of a JSON file of panoptic annotations, an object with a list `annotations`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        raise ValueError(
            f"{path} is {describe_folder(path)}: expected the JSON file of the panoptic annotations"
        ) from None
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("annotations"), list):
        raise ValueError(f"{path} has no list `annotations`: expected the COCO panoptic format")
    return content


def check_categories(categories: Any, path: Path) -> list[dict[str, Any]]:
    """The categories of a JSON file, if each has its own `id`, and `isthing`."""
    is_list = isinstance(categories, list) and all(isinstance(category, dict) for category in categories)
    if not categories or not is_list or any("id" not in row or "isthing" not in row for row in categories):
        raise ValueError(f"{path}: `categories` must list every category with its `id` and `isthing`")
    ids = [category["id"] for category in categories]
    repeated = [identity for identity in set(ids) if ids.count(identity) > 1]
    if repeated:
        raise ValueError(f"{path}: category id {repeated[0]} occurs twice")
    return list(categories)


def _by_picture(content: dict[str, Any], path: Path) -> dict[Any, dict[str, Any]]:
    records: dict[Any, dict[str, Any]] = {}
    for record in content["annotations"]:
        if "image_id" not in record or not isinstance(record.get("segments_info"), list):
            raise ValueError(f"{path}: an annotation has no image_id or no list segments_info: {str(record)[:80]}")
        if record["image_id"] in records:
            raise ValueError(f"{path}: image_id {record['image_id']} occurs twice: keep one annotation per picture")
        records[record["image_id"]] = record
    return records


def _file_name(record: dict[str, Any], path: Path) -> str:
    name = record.get("file_name")
    if not name or not isinstance(name, str):
        raise ValueError(f"{path}, image_id {record['image_id']}: no file_name of a PNG")
    return name
