"""Writers of COCO's two forms: panoptic PNGs with a JSON, and instances as RLE."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omg_transformers.data.readers.coco_instances import ABSENT, MORE
from omg_transformers.data.regions import encode_region, region_area
from omg_transformers.data.writers.split_writer import NumberGiver, SplitWriter, painted
from omg_transformers.formats.atomic_file import write_json
from omg_transformers.formats.coco_panoptic import MAX_ID, categories, write_id_png
from omg_transformers.ops.masks import rle_box

if TYPE_CHECKING:
    from pathlib import Path

    from omg_transformers.labels import LabelSpace
    from omg_transformers.structures import RLE, Sample

# The largest that every reader of JSON keeps exactly.
MAX_NUMBER = 2**53


class CocoPanopticWriter(SplitWriter):
    """`SPLIT/*.jpg`, `annotations/panoptic_SPLIT.json`, `annotations/panoptic_SPLIT/*.png`."""

    def __init__(self, root: Path, split: str, label_space: LabelSpace) -> None:
        super().__init__(root, split, label_space)
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._ids = NumberGiver(MAX_NUMBER)
        _, self._json, self._pngs = self.places(root, split)
        self._pngs.mkdir(parents=True)

    @staticmethod
    def places(root: Path, split: str) -> tuple[Path, ...]:
        """Pictures, JSON, PNGs."""
        json = root / "annotations" / f"panoptic_{split}.json"
        return root / split, json, json.with_suffix("")

    def add(self, sample: Sample) -> None:
        """Write the picture, or each annotated frame."""
        self.lose_certainty(sample)
        for frame, name in self.pictures(sample):
            image = _image(self, sample, frame, name, self._ids)
            self._images.append(image)
            file_name = f"{image['file_name'].rpartition('.')[0]}.png"
            infos = self._segments(sample, frame, self._pngs / file_name)
            self._annotations.append({"image_id": image["id"], "file_name": file_name, "segments_info": infos})

    def close(self) -> None:
        """Write the JSON."""
        content = {"images": self._images, "annotations": self._annotations}
        write_json(self._json, {**content, "categories": named_categories(self.label_space)})

    def _segments(self, sample: Sample, frame: int, path: Path) -> list[dict[str, Any]]:
        numbers = NumberGiver(MAX_ID)
        regions: list[tuple[int, RLE]] = []
        about: dict[int, tuple[int, bool]] = {}
        for segment in sample.annotation.segments:
            rle = segment.masks[frame]
            label = None if rle is None else self.label(segment)
            number = None if label is None else numbers.give(segment.track_id)
            if rle is not None and label is not None and number is not None:
                regions.append((number, rle))
                about[number] = label, segment.is_crowd
        ids = painted(regions, sample.annotation.size, self.losses)
        write_id_png(path, ids)
        infos = []
        for number, (label, is_crowd) in about.items():
            rle = encode_region(ids == number)
            if rle is not None:
                infos.append({"id": number, **_about(rle, self.label_space.dataset_ids[label], is_crowd)})
        self.num_segments += len(infos)
        return infos


class CocoInstancesWriter(SplitWriter):
    """`SPLIT/*.jpg` and `annotations/instances_SPLIT.json`; stuff is held too, as categories with `isthing` 0.

    Pictures that are not annotated in full have LVIS' keys for classes without and with more objects.
    """

    def __init__(self, root: Path, split: str, label_space: LabelSpace) -> None:
        super().__init__(root, split, label_space)
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._ids, self._segment_ids = NumberGiver(MAX_NUMBER), NumberGiver(MAX_NUMBER)

    @staticmethod
    def places(root: Path, split: str) -> tuple[Path, ...]:
        """Pictures and JSON."""
        return root / split, root / "annotations" / f"instances_{split}.json"

    def add(self, sample: Sample) -> None:
        """Write the picture, or each annotated frame."""
        frames = []
        for frame, name in self.pictures(sample):
            frames.append(frame)
            image = _image(self, sample, frame, name, self._ids)
            self._images.append(image)
            written = set()
            for segment in sample.annotation.segments:
                rle = segment.masks[frame]
                label = None if rle is None else self.label(segment)
                if rle is None or label is None:
                    continue
                self.num_segments += 1
                written.add(label)
                number = self._segment_ids.give(segment.track_id)
                row = {"id": number, "image_id": image["id"], "segmentation": counts_as_text(rle)}
                self._annotations.append({**row, **_about(rle, self.label_space.dataset_ids[label], segment.is_crowd)})
            if not sample.annotation.is_exhaustive:
                image.update(self._uncertain(sample.annotation.certain_classes or frozenset(), written))
        self.lose_void(sample, frames)

    def _uncertain(self, certain: frozenset[int], written: set[int]) -> dict[str, list[int]]:
        """What LVIS says of a picture in which not everything is annotated."""
        ids = self.label_space.dataset_ids
        absent, more = certain - written, written - certain
        return {ABSENT: sorted(ids[label] for label in absent), MORE: sorted(ids[label] for label in more)}

    def close(self) -> None:
        """Write the JSON."""
        path = self.places(self.root, self.split)[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"images": self._images, "annotations": self._annotations}
        write_json(path, {**content, "categories": named_categories(self.label_space)})


def named_categories(label_space: LabelSpace) -> list[dict[str, Any]]:
    """COCO's list of categories, with synonyms where there are some."""
    return [
        {**entry, "synonyms": list(label.synonyms)} if label.synonyms else entry
        for entry, label in zip(categories(label_space), label_space.classes, strict=True)
    ]


def counts_as_text(rle: RLE) -> dict[str, Any]:
    """An RLE as JSON holds it."""
    return {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}


def box_xywh(rle: RLE) -> list[float]:
    """The tight box of a region: left, top, width, height."""
    left, top, right, bottom = rle_box(rle)
    return [left, top, right - left, bottom - top]


def _image(writer: SplitWriter, sample: Sample, frame: int, name: str, ids: NumberGiver) -> dict[str, Any]:
    """Save one picture; its entry of `images`. Names that are whole numbers stay ids."""
    number = ids.give(int(name) if name.isdecimal() and len(name) < 16 else 0)
    height, width = sample.annotation.size
    stem = writer.free_name(name.zfill(12) if name.isdecimal() else name)
    file_name = writer.save_frame(sample.frames[frame], writer.root / writer.split, stem)
    return {"id": number, "file_name": file_name, "height": height, "width": width}


def _about(rle: RLE, category_id: int, is_crowd: bool) -> dict[str, Any]:
    return {"category_id": category_id, "area": region_area(rle), "bbox": box_xywh(rle), "iscrowd": int(is_crowd)}
