"""Writers of videos: YouTube-VIS's JSON of tracks, and DAVIS's PNGs of object numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from omg_transformers.data.regions import decode_region, merge_regions, region_area
from omg_transformers.data.writers.coco import MAX_NUMBER, box_xywh, counts_as_text, named_categories
from omg_transformers.data.writers.split_writer import NumberGiver, SplitWriter, painted
from omg_transformers.formats.atomic_file import write_bytes, write_json, write_png
from omg_transformers.formats.davis import davis_palette

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from omg_transformers.labels import LabelSpace
    from omg_transformers.structures import RLE, Sample

_VOID, _MAX_OBJECTS = 255, 254


class YoutubeVisWriter(SplitWriter):
    """`SPLIT/JPEGImages/VIDEO/*.jpg` and `SPLIT/instances.json`: things only."""

    holds_stuff = False

    def __init__(self, root: Path, split: str, label_space: LabelSpace) -> None:
        super().__init__(root, split, label_space)
        self._videos: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._track_ids = NumberGiver(MAX_NUMBER)

    @staticmethod
    def places(root: Path, split: str) -> tuple[Path, ...]:
        """One folder holds all."""
        return (root / split,)

    def add(self, sample: Sample) -> None:
        """Write a clip; a picture is a clip of one frame."""
        frames = self.annotated_frames(sample)
        if not frames:
            return
        name, number = self.free_name(sample.sample_id), len(self._videos) + 1
        folder = self.root / self.split / "JPEGImages" / name
        files = [
            f"{name}/{self.save_frame(sample.frames[frame], folder, f'{place:05d}')}"
            for place, frame in enumerate(frames)
        ]
        height, width = sample.annotation.size
        video = {"id": number, "file_names": files, "height": height, "width": width, "length": len(frames)}
        if not sample.annotation.is_exhaustive or self._is_void_outside(sample, frames):
            video["exhaustive"] = False
        if sample.annotation.certain_classes and not sample.annotation.is_exhaustive:
            self.losses["samples read as certain of no class, and were of some"] += 1
        self.lose_void(sample, frames)
        self._videos.append(video)
        for segment in sample.annotation.segments:
            masks = [segment.masks[frame] for frame in frames]
            label = self.label(segment) if any(masks) else None
            if label is None:
                continue
            self.num_segments += 1
            self._annotations.append(
                {
                    "id": self._track_ids.give(segment.track_id),
                    "video_id": number,
                    "category_id": self.label_space.dataset_ids[label],
                    "iscrowd": int(segment.is_crowd),
                    "height": height,
                    "width": width,
                    "length": len(frames),
                    "segmentations": [None if rle is None else counts_as_text(rle) for rle in masks],
                    "bboxes": [None if rle is None else box_xywh(rle) for rle in masks],
                    "areas": [None if rle is None else region_area(rle) for rle in masks],
                }
            )

    def close(self) -> None:
        """Write the JSON."""
        folder = self.root / self.split
        folder.mkdir(parents=True, exist_ok=True)
        content = {"videos": self._videos, "annotations": self._annotations}
        write_json(folder / "instances.json", {**content, "categories": named_categories(self.label_space)})

    @staticmethod
    def _is_void_outside(sample: Sample, frames: Sequence[int]) -> bool:
        """Whether all that is no thing is void: then nobody says that nothing else is there."""
        annotation = sample.annotation
        whole = annotation.size[0] * annotation.size[1]
        unions = [
            merge_regions([annotation.void[frame], *(segment.masks[frame] for segment in annotation.segments)])
            for frame in frames
        ]
        has_stuff = any(
            segment.category_id >= 0 and not annotation.is_thing[segment.category_id] for segment in annotation.segments
        )
        has_void = any(annotation.void[frame] is not None for frame in frames)
        return has_void and not has_stuff and all(region_area(union) == whole for union in unions)


class DavisWriter(SplitWriter):
    """`JPEGImages/480p/VIDEO`, `Annotations/480p/VIDEO`, `ImageSets/2017/SPLIT.txt`: objects by number, no classes."""

    holds_stuff = False
    holds_crowds = False

    def __init__(self, root: Path, split: str, label_space: LabelSpace) -> None:
        super().__init__(root, split, label_space)
        self._names: list[str] = []
        # Videos of other splits lie in the same folders.
        pictures = root / "JPEGImages" / "480p"
        self._taken |= {path.name.casefold() for path in pictures.iterdir()} if pictures.is_dir() else set()

    @staticmethod
    def places(root: Path, split: str) -> tuple[Path, ...]:
        """The list; the other folders are shared by all splits."""
        return (root / "ImageSets" / "2017" / f"{split}.txt",)

    def add(self, sample: Sample) -> None:
        """Write a clip; frames that nobody annotated have no PNG."""
        name = self.free_name(sample.sample_id)
        self._names.append(name)
        annotation = sample.annotation
        numbers = NumberGiver(_MAX_OBJECTS)
        objects: list[tuple[int, Sequence[RLE | None]]] = []
        for segment in annotation.segments:
            if self.label(segment) is None:
                continue
            number = numbers.give(segment.track_id)
            if number is None:
                self.losses[f"objects beyond {_MAX_OBJECTS} of one video were left out"] += 1
                continue
            objects.append((number, segment.masks))
        if not self.label_space.is_class_agnostic and objects:
            self.losses["objects lost their class"] += len(objects)
        self.num_segments += len(objects)
        whole = annotation.size[0] * annotation.size[1]
        for frame, void in enumerate(annotation.void):
            stem = f"{frame:05d}"
            self.save_frame(sample.frames[frame], self.root / "JPEGImages" / "480p" / name, stem)
            if region_area(void) < whole:
                self._write_png(
                    name, stem, [(number, masks[frame]) for number, masks in objects], void, annotation.size
                )

    def close(self) -> None:
        """Write the list of videos."""
        path = self.places(self.root, self.split)[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, "".join(f"{name}\n" for name in self._names).encode())

    def _write_png(
        self, name: str, stem: str, objects: Sequence[tuple[int, RLE | None]], void: RLE | None, size: tuple[int, int]
    ) -> None:
        regions = [(number, rle) for number, rle in objects if rle is not None]
        values = painted(regions, size, self.losses).astype(np.uint8)
        values[decode_region(void, size) & (values == 0)] = _VOID
        image = Image.fromarray(values)
        image.putpalette(davis_palette().tobytes())
        folder = self.root / "Annotations" / "480p" / name
        folder.mkdir(parents=True, exist_ok=True)
        write_png(folder / f"{stem}.png", image)
