"""What all writers of data sets share: one split, its pictures, and a list of what the layout cannot hold."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from PIL import Image

from omg_transformers.data.regions import decode_region, region_area
from omg_transformers.formats.atomic_file import write_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from omg_transformers.labels import LabelSpace
    from omg_transformers.structures import RLE, Sample, Segment


class SplitWriter(ABC):
    """Writes the samples of one split below `root`. `close` writes what is about all of them.

    losses: what the layout could not hold, and how often. holds_stuff, holds_crowds: segments of the other kind are
    left out and counted.
    """

    holds_stuff: ClassVar[bool] = True
    holds_crowds: ClassVar[bool] = True

    def __init__(self, root: Path, split: str, label_space: LabelSpace) -> None:
        self.root, self.split, self.label_space = root, split, label_space
        self.losses: Counter[str] = Counter()
        self.num_segments = 0
        self.num_frames = 0
        self._taken: set[str] = set()

    @staticmethod
    @abstractmethod
    def places(root: Path, split: str) -> tuple[Path, ...]:
        """Files and folders that belong to one split: none may be there before."""

    @abstractmethod
    def add(self, sample: Sample) -> None:
        """Write one sample."""

    @abstractmethod
    def close(self) -> None:
        """Write what is about all samples."""

    def label(self, segment: Segment) -> int | None:
        """The class that a segment is written with; None, and counted, when it has none or is not held."""
        label = 0 if self.label_space.is_class_agnostic else segment.category_id
        if label < 0:
            self.losses["segments without a class were left out"] += 1
        elif segment.is_crowd and not self.holds_crowds:
            self.losses["crowds were left out"] += 1
        elif not (self.holds_stuff or self.label_space.is_thing[label]):
            self.losses["stuff segments were left out"] += 1
        else:
            return label
        return None

    def annotated_frames(self, sample: Sample) -> list[int]:
        """Frames that are not void as a whole; the others are counted as left out."""
        whole = sample.annotation.size[0] * sample.annotation.size[1]
        frames = [number for number, rle in enumerate(sample.annotation.void) if region_area(rle) < whole]
        if len(frames) < len(sample.annotation.void):
            self.losses["frames without annotation were left out"] += len(sample.annotation.void) - len(frames)
        return frames

    def pictures(self, sample: Sample) -> Iterator[tuple[int, str]]:
        """The frames as single pictures: number and name. Of clips the tracks are lost."""
        if len(sample.frames) == 1:
            yield 0, sample.sample_id
            return
        self.losses["clips became single pictures, without tracks"] += 1
        for number in self.annotated_frames(sample):
            frame = sample.frames[number]
            yield number, f"{sample.sample_id}_{frame.stem if isinstance(frame, Path) else f'{number:05d}'}"

    def lose_void(self, sample: Sample, frames: Sequence[int]) -> None:
        """Count the frames whose void cannot be told."""
        count = sum(1 for number in frames if sample.annotation.void[number] is not None)
        if count:
            self.losses["frames have void, which reads as background"] += count

    def lose_certainty(self, sample: Sample) -> None:
        """Count a sample of which the layout cannot tell that something was left out."""
        if not sample.annotation.is_exhaustive:
            self.losses["samples that are not annotated in full read as if they were"] += 1

    def free_name(self, name: str) -> str:
        """`name` fit for a file; another when it was given before."""
        plain = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name).lstrip(".") or "_"
        found, number = plain, 2
        while found.casefold() in self._taken:
            found, number = f"{plain}-{number}", number + 1
        self._taken.add(found.casefold())
        return found

    def save_frame(self, frame: bytes | Path | np.ndarray[Any, Any], folder: Path, name: str) -> str:
        """Copy a frame as it is encoded, or write a PNG of an array; returns the name of the file."""
        self.num_frames += 1
        if isinstance(frame, Path):
            content, suffix = frame.read_bytes(), frame.suffix.lower()
        elif isinstance(frame, bytes):
            with Image.open(io.BytesIO(frame)) as picture:
                content, suffix = frame, ".jpg" if picture.format == "JPEG" else f".{(picture.format or 'png').lower()}"
        else:
            stream = io.BytesIO()
            Image.fromarray(frame).save(stream, "PNG", compress_level=3)
            content, suffix = stream.getvalue(), ".png"
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / f"{name}{suffix}", content)
        return f"{name}{suffix}"


class NumberGiver:
    """Whole numbers, each once: the wanted one where it is free and in range, else the next free one."""

    def __init__(self, last: int) -> None:
        self._last = last
        self._taken: set[int] = set()
        self._next = 1

    def give(self, wanted: int) -> int | None:
        """A number from 1 to `last`; None when all are taken."""
        if not 0 < wanted <= self._last or wanted in self._taken:
            while self._next in self._taken:
                self._next += 1
            wanted = self._next
        if wanted > self._last:
            return None
        self._taken.add(wanted)
        return wanted


def painted(
    regions: Sequence[tuple[int, RLE]], size: tuple[int, int], losses: Counter[str]
) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Numbers (H, W) of regions, the small ones in front where they overlap; what is covered whole is counted."""
    canvas = np.zeros(size, np.int32)
    areas = {number: region_area(rle) for number, rle in regions}
    for number, rle in sorted(regions, key=lambda region: -areas[region[0]]):
        canvas[decode_region(rle, size)] = number
    found = dict(zip(*(values.tolist() for values in np.unique(canvas, return_counts=True)), strict=True))
    for number, area in areas.items():
        if number not in found:
            losses["segments lie behind others as a whole and were left out"] += 1
        elif found[number] < area:
            losses["segments lie behind others in part and were cut"] += 1
    return canvas
