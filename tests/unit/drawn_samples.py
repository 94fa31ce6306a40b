"""A small sound data set, made in memory: rectangles on two grounds, pictures and clips."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from omg_transformers.data.regions import encode_region
from omg_transformers.labels import LabelSpace
from omg_transformers.structures import Annotation, Sample, Segment

SIZE = (40, 60)
SPACE = LabelSpace.from_names(
    ["cat", "dog", "cup", "car", "grass", "sky"], things=["cat", "dog", "cup", "car"], name="drawn"
)
TASKS = ("panoptic",)


@dataclass
class ListSource:
    """Samples in a list as a source."""

    samples: list[Sample]
    label_space: LabelSpace = SPACE
    tasks: tuple[str, ...] = TASKS

    @property
    def num_samples(self):
        return len(self.samples)

    def sample(self, index):
        return self.samples[index]


def picture(seed: int) -> np.ndarray:
    """A picture (H, W, 3) of soft colours that looks like no other."""
    cells = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(cells).resize((SIZE[1], SIZE[0]), Image.Resampling.BICUBIC))


def drawn_sample(seed: int, num_frames: int = 1) -> Sample:
    """Grass and sky with two things in front; in clips these move by two pixels per frame."""
    rng = np.random.default_rng([1, seed])
    edge = int(rng.integers(12, 28))
    boxes = [(int(rng.integers(3, 18)), 4 + 26 * number, 10 + seed % 3, 14 + seed % 5) for number in range(2)]
    maps = []
    for frame in range(num_frames):
        ids = np.where(np.arange(SIZE[0])[:, None] < edge, 2, 1) * np.ones(SIZE, int)
        for number, (top, left, height, width) in enumerate(boxes, start=3):
            ids[top + 2 * frame : top + 2 * frame + height, left : left + width] = number
        maps.append(ids)
    classes = {1: 4, 2: 5, 3: seed % 4, 4: (seed // 4) % 4}
    segments = [
        Segment(label, tuple(encode_region(ids == number) for ids in maps), number if number > 2 else -1)
        for number, label in classes.items()
    ]
    annotation = Annotation(SIZE, SPACE.is_thing, tuple(segments), (None,) * num_frames)
    frames = tuple(picture(100 * seed + frame) for frame in range(num_frames))
    return Sample(str(seed + 1), frames, annotation, SPACE, TASKS)


def drawn_source(first: int = 0, count: int = 12, num_frames: int = 1) -> ListSource:
    """Samples `first` to `first + count - 1`; sources that do not overlap share no picture."""
    return ListSource([drawn_sample(seed, num_frames) for seed in range(first, first + count)])


def with_annotation(sample: Sample, **changes) -> Sample:
    """The sample with another annotation."""
    return replace(sample, annotation=replace(sample.annotation, **changes))


def box_region(top: int, left: int, bottom: int, right: int):
    """The RLE of a rectangle."""
    mask = np.zeros(SIZE, bool)
    mask[top:bottom, left:right] = True
    return encode_region(mask)
