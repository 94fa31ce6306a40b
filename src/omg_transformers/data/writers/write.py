"""From a source of samples to files in another layout, with an account of what that layout cannot hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from omg_transformers.data.frames import decode_frame
from omg_transformers.data.sources import SampleError, check_on_error
from omg_transformers.data.writers.coco import CocoInstancesWriter, CocoPanopticWriter
from omg_transformers.data.writers.videos import DavisWriter, YoutubeVisWriter
from omg_transformers.data.writers.yolo import YoloSegWriter
from omg_transformers.settings import nearest

if TYPE_CHECKING:
    from omg_transformers.data.sources import OnError, SampleSource
    from omg_transformers.data.writers.split_writer import SplitWriter
    from omg_transformers.structures import Sample

WRITERS: dict[str, type[SplitWriter]] = {
    "coco_panoptic": CocoPanopticWriter,
    "coco_instances": CocoInstancesWriter,
    "youtube_vis": YoutubeVisWriter,
    "davis": DavisWriter,
    "yolo_seg": YoloSegWriter,
}


@dataclass(frozen=True, slots=True)
class Written:
    """What was written of one split. losses: what the layout cannot hold, and how often. skipped: bad samples."""

    kind: str
    split: str
    num_samples: int
    num_frames: int
    num_segments: int
    losses: dict[str, int] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()


def write_source(
    source: SampleSource,
    kind: str,
    root: str | Path,
    split: str,
    *,
    limit: int | None = None,
    on_error: OnError = "raise",
    show_progress: bool = False,
) -> Written:
    """Write all samples as one split in the layout `kind` below `root`. Each file is written whole or not at all.

    The file that lists all samples comes last: without it the split is unfinished. limit: only the first samples.
    Raises ValueError for an unknown kind, an endless source without limit, and places that are taken.
    """
    check_on_error(on_error)
    writer_class = _writer(kind)
    length = source.num_samples if limit is None else min(limit, source.num_samples or limit)
    if length is None:
        raise ValueError("the source is endless: say with limit how many samples to write")
    check_target(kind, root, split)
    split = _plain(split)
    Path(root).mkdir(parents=True, exist_ok=True)
    writer = writer_class(Path(root), split, source.label_space)
    skipped: list[str] = []
    for index in tqdm(range(length), unit="sample", desc=split, disable=not show_progress):
        try:
            sample = source.sample(index)
            _check_frames(sample)
        except SampleError as error:
            if on_error == "raise":
                raise
            skipped.append(str(error))
        else:
            writer.add(sample)
    writer.close()
    return Written(
        kind, split, length - len(skipped), writer.num_frames, writer.num_segments, dict(writer.losses), tuple(skipped)
    )


def check_target(kind: str, root: str | Path, split: str) -> None:
    """Refuse, with ValueError, a split of which something is there already."""
    for place in _writer(kind).places(Path(root), _plain(split)):
        if place.exists() and (place.is_file() or any(place.iterdir())):
            raise ValueError(f"{place} is there already: choose another folder, or remove it to write it anew")


def format_written(written: Written) -> str:
    """One line of numbers, then one per loss and per sample that was left out."""
    lines = [
        f"{written.split}: {written.num_samples} samples, {written.num_frames} pictures, {written.num_segments} "
        f"segments as {written.kind}"
    ]
    lines += [f"  not held: {count} {loss}" for loss, count in written.losses.items()]
    lines += [f"  left out: {reason}" for reason in written.skipped]
    return "\n".join(lines)


def _check_frames(sample: Sample) -> None:
    """Refuse, with SampleError, frames that cannot be decoded: they would only be copied."""
    for frame in sample.frames:
        decode_frame(frame, name=sample.sample_id, expected_size=sample.annotation.size, at_least=(1, 1))


def _plain(split: str) -> str:
    """Readers call splits of deeper folders "VOC2012/train": in one folder that is one name."""
    return split.replace("/", "_")


def _writer(kind: str) -> type[SplitWriter]:
    if kind not in WRITERS:
        raise ValueError(f"kind is {kind!r}: no layout that can be written{nearest(kind, WRITERS)}")
    return WRITERS[kind]
