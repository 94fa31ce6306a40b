"""COCO's results file: a JSON list with one scored mask, class and box per object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from omg_transformers.formats.atomic_file import read_json
from omg_transformers.ops.masks import encode_mask, rle_area, rle_box
from omg_transformers.structures import RLE, Segments

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from omg_transformers.labels import LabelSpace


def coco_results(
    segments: Segments,
    label_space: LabelSpace | None,
    *,
    image_id: int | str,
    only_things: bool = False,
    frame: int = 0,
) -> list[dict[str, Any]]:
    """The entries of one picture: image_id, category_id (the data set's), score, segmentation (RLE), bbox, area, id.

    Segments without a class get the category_id 0. only_things: leave out stuff. Masks that are empty are left out.
    """
    entries = []
    for index in range(len(segments)):
        label = int(segments.labels[index])
        if only_things and label_space is not None and label >= 0 and not label_space.is_thing[label]:
            continue
        rle = _rle(segments, index, frame)
        if rle is None:
            continue
        left, top, right, bottom = rle_box(rle)
        counts = rle["counts"]
        entries.append(
            {
                "image_id": image_id,
                "category_id": label_space.dataset_ids[label] if label_space is not None and label >= 0 else 0,
                "score": round(float(segments.scores[index]), 6),
                "segmentation": {"size": list(rle["size"]), "counts": counts.decode("ascii")},
                "bbox": [left, top, right - left, bottom - top],
                "area": rle_area(rle),
                "id": int(segments.ids[index]),
            }
        )
    return entries


def segments_of_results(
    entries: Sequence[Mapping[str, Any]], label_space: LabelSpace | None, *, size: tuple[int, int]
) -> Segments:
    """The segments of one picture of `size`, in the file's order. Category 0 of no label space means no class."""
    rles: list[tuple[RLE | None, ...]] = []
    labels = []
    for entry in entries:
        segmentation = entry["segmentation"]
        if not isinstance(segmentation, dict) or not isinstance(segmentation.get("counts"), (str, bytes)):
            raise ValueError(
                f"an entry of image {entry.get('image_id')} has no compressed RLE: expected size and counts"
            )
        if tuple(segmentation["size"]) != tuple(size):
            raise ValueError(
                f"an entry of image {entry.get('image_id')} has a mask of size {tuple(segmentation['size'])}, "
                f"expected {size}"
            )
        counts = segmentation["counts"]
        rles.append(({"size": list(size), "counts": counts.encode("ascii") if isinstance(counts, str) else counts},))
        labels.append(_label(int(entry["category_id"]), label_space))
    return Segments(
        size,
        torch.arange(1, len(rles) + 1),
        torch.tensor(labels, dtype=torch.long),
        torch.tensor([float(entry.get("score", 1.0)) for entry in entries], dtype=torch.float32),
        rles=tuple(rles),
    )


def read_coco_results(
    path: str | Path, label_space: LabelSpace | None, *, sizes: Mapping[int | str, tuple[int, int]] | None = None
) -> dict[int | str, Segments]:
    """All pictures of a results file, by image id. sizes: of pictures; by default as their masks say."""
    by_image: dict[int | str, list[Mapping[str, Any]]] = {}
    for entry in _entries(read_json(path), path):
        by_image.setdefault(entry["image_id"], []).append(entry)
    known = {} if sizes is None else dict(sizes)
    return {
        image: segments_of_results(entries, label_space, size=known.get(image, _size(entries[0])))
        for image, entries in by_image.items()
    }


def _entries(content: Any, path: str | Path) -> Iterable[Mapping[str, Any]]:
    if not isinstance(content, list):
        raise ValueError(f"{path} is no COCO results file: expected a list of entries, found {type(content).__name__}")
    return content


def _size(entry: Mapping[str, Any]) -> tuple[int, int]:
    height, width = entry["segmentation"]["size"]
    return int(height), int(width)


def _label(category_id: int, label_space: LabelSpace | None) -> int:
    if label_space is None:
        return -1
    label = label_space.index_of_dataset_id(category_id)
    return -1 if label is None else label


def _rle(segments: Segments, index: int, frame: int) -> RLE | None:
    rle = encode_mask(segments.mask(index)[frame]) if segments.rles is None else segments.rles[index][frame]
    return None if rle is None or rle_area(rle) == 0 else rle
