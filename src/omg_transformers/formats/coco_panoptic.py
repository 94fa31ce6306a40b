"""COCO's panoptic files: a PNG whose colours are segment ids, and a JSON that says what each id is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from omg_transformers.formats.atomic_file import read_json, write_json, write_png
from omg_transformers.structures import Segments

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from omg_transformers.labels import LabelSpace

MAX_ID = 256**3 - 1


def write_id_png(path: str | Path, ids: NDArray[Any]) -> Path:
    """Write ids (H, W), 0 = void, as colours: id = red + 256 * green + 65536 * blue."""
    if ids.ndim != 2:
        raise ValueError(f"ids has shape {ids.shape}: expected (H, W), one frame")
    if ids.size and (ids.min() < 0 or ids.max() > MAX_ID):
        raise ValueError(f"ids run from {ids.min()} to {ids.max()}: a colour can hold 0 to {MAX_ID}")
    colors = np.stack([ids & 255, (ids >> 8) & 255, (ids >> 16) & 255], axis=-1).astype(np.uint8)
    return write_png(path, Image.fromarray(colors))


def read_id_png(path: str | Path) -> NDArray[np.int32]:
    """The ids (H, W) of a PNG as `write_id_png` writes it."""
    try:
        with Image.open(path) as image:
            colors = np.asarray(image.convert("RGB"), dtype=np.int32)
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path} is missing or not a readable PNG ({error})") from error
    return colors[..., 0] + 256 * colors[..., 1] + 65536 * colors[..., 2]


def panoptic_annotation(
    segments: Segments, label_space: LabelSpace, *, image_id: int | str, file_name: str, frame: int = 0
) -> dict[str, Any]:
    """The JSON entry of one picture: per segment id, category_id (the data set's), area, bbox (x, y, w, h), score."""
    ids = id_map_of(segments, frame)
    infos = []
    for index in range(len(segments)):
        mask = ids == int(segments.ids[index])
        area = int(mask.sum())
        if area == 0:  # absent from this frame
            continue
        infos.append(
            {
                "id": int(segments.ids[index]),
                "category_id": label_space.dataset_ids[int(segments.labels[index])],
                "area": area,
                "bbox": _box_xywh(mask),
                "iscrowd": 0,
                "score": round(float(segments.scores[index]), 6),
            }
        )
    return {"image_id": image_id, "file_name": file_name, "segments_info": infos}


def write_panoptic(
    path: str | Path,
    results: Iterable[tuple[int | str, str, Segments]],
    label_space: LabelSpace,
    *,
    folder: str | Path | None = None,
) -> Path:
    """Write one JSON and, in `folder` (default: beside it, with its name), one PNG per picture.

    results: (image id, PNG file name, Segments that do not overlap) of each picture.
    """
    target = Path(path)
    pngs = target.with_suffix("") if folder is None else Path(folder)
    pngs.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for image_id, file_name, segments in results:
        write_id_png(pngs / file_name, id_map_of(segments, 0))
        annotations.append(panoptic_annotation(segments, label_space, image_id=image_id, file_name=file_name))
        images.append({"id": image_id, "file_name": file_name, "height": segments.size[0], "width": segments.size[1]})
    return write_json(target, panoptic_content(images, annotations, label_space))


def panoptic_content(
    images: Sequence[Mapping[str, Any]], annotations: Sequence[Mapping[str, Any]], label_space: LabelSpace
) -> dict[str, Any]:
    """The content of the JSON file: pictures, annotations, and what the category ids mean."""
    return {"images": list(images), "annotations": list(annotations), "categories": categories(label_space)}


def categories(label_space: LabelSpace) -> list[dict[str, Any]]:
    """COCO's list of categories."""
    return [
        {"id": label.dataset_id, "name": label.name, "isthing": int(label.is_thing), "color": list(label.color)}
        for label in label_space.classes
    ]


def segments_of_panoptic(ids: NDArray[Any], annotation: Mapping[str, Any], label_space: LabelSpace) -> Segments:
    """The segments of one picture. ids: (H, W). Missing scores are 1. Ids without an entry: ValueError."""
    infos = annotation["segments_info"]
    known = {int(info["id"]) for info in infos}
    present = set(np.unique(ids).tolist()) - {0}
    if present - known:
        raise ValueError(
            f"the PNG of {annotation.get('file_name', 'a picture')} holds ids {sorted(present - known)[:5]} that its "
            "segments_info does not name: PNG and JSON do not belong together"
        )
    labels = [label_space.index_of_dataset_id(int(info["category_id"])) for info in infos]
    return Segments(
        (ids.shape[0], ids.shape[1]),
        torch.tensor([int(info["id"]) for info in infos], dtype=torch.long),
        torch.tensor([-1 if label is None else label for label in labels], dtype=torch.long),
        torch.tensor([float(info.get("score", 1.0)) for info in infos], dtype=torch.float32),
        id_map=torch.from_numpy(ids.astype(np.int32))[None],
    )


def read_panoptic(
    path: str | Path, label_space: LabelSpace, *, folder: str | Path | None = None
) -> dict[int | str, Segments]:
    """All pictures of a JSON and its PNGs, by image id: predictions, or a data set's truth."""
    target = Path(path)
    pngs = target.with_suffix("") if folder is None else Path(folder)
    return {
        annotation["image_id"]: segments_of_panoptic(
            read_id_png(pngs / annotation["file_name"]), annotation, label_space
        )
        for annotation in read_json(target)["annotations"]
    }


def id_map_of(segments: Segments, frame: int) -> NDArray[np.int32]:
    """The ids of one frame (H, W). ValueError: the segments may overlap."""
    if segments.id_map is None:
        raise ValueError("these Segments may overlap: a PNG of ids needs segments that do not (id_map)")
    ids: NDArray[np.int32] = segments.id_map[frame].cpu().numpy()
    return ids


def _box_xywh(mask: NDArray[np.bool_]) -> list[int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, top = int(columns[0]), int(rows[0])
    return [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top]
