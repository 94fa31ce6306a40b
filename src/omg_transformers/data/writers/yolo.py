"""Writer of YOLO's segmentation labels: one text file per picture, one polygon per object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from omg_transformers.data.regions import decode_region
from omg_transformers.data.writers.outlines import outline_of_mask
from omg_transformers.data.writers.split_writer import SplitWriter
from omg_transformers.formats.atomic_file import write_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from omg_transformers.labels import LabelSpace
    from omg_transformers.structures import Sample


class YoloSegWriter(SplitWriter):
    """`images/SPLIT`, `labels/SPLIT/*.txt`, `data.yaml` with the names: things only, classes counted from 0.

    Holes and separate pieces of an object are joined to one outline by lines without width.
    """

    holds_stuff = False
    holds_crowds = False

    def __init__(self, root: Path, split: str, label_space: LabelSpace) -> None:
        super().__init__(root, split, label_space)
        things = [label for label, is_thing in enumerate(label_space.is_thing) if is_thing]
        self._number_of = {label: number for number, label in enumerate(things)}
        self._names = {number: label_space.names[label] for label, number in self._number_of.items()}
        self._about = _about_folder(root, self._names)

    @staticmethod
    def places(root: Path, split: str) -> tuple[Path, ...]:
        """Pictures and labels."""
        return root / "images" / split, root / "labels" / split

    def add(self, sample: Sample) -> None:
        """Write the picture, or each annotated frame."""
        pictures, labels = self.places(self.root, self.split)
        labels.mkdir(parents=True, exist_ok=True)
        height, width = sample.annotation.size
        self.lose_certainty(sample)
        frames = []
        for frame, name in self.pictures(sample):
            frames.append(frame)
            stem = self.free_name(name)
            self.save_frame(sample.frames[frame], pictures, stem)
            lines = []
            for segment in sample.annotation.segments:
                label = None if segment.masks[frame] is None else self.label(segment)
                if label is None:
                    continue
                points = outline_of_mask(decode_region(segment.masks[frame], (height, width)))
                shares = " ".join(f"{x / width:.9g} {y / height:.9g}" for x, y in points)
                lines.append(f"{self._number_of[label]} {shares}\n")
            self.num_segments += len(lines)
            write_bytes(labels / f"{stem}.txt", "".join(lines).encode())
        self.lose_void(sample, frames)

    def close(self) -> None:
        """Write data.yaml, which names the splits that were written before as well."""
        self._about[self.split] = f"images/{self.split}"
        text = yaml.safe_dump({**self._about, "names": self._names}, sort_keys=False, allow_unicode=True)
        write_bytes(self.root / "data.yaml", text.encode())


def _about_folder(root: Path, names: dict[int, str]) -> dict[str, Any]:
    """What data.yaml says of other splits. Raises ValueError when it has other names."""
    path = root / "data.yaml"
    if not path.is_file():
        return {"path": "."}
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or content.get("names") != names:
        raise ValueError(f"{path} names other classes than this data set: choose another folder")
    return {key: value for key, value in content.items() if key != "names"}
