"""Samples of one task -> one padded, normalised batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import torch

from omg_transformers.data.regions import redraw
from omg_transformers.structures import Annotation, Sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from omg_transformers.data.regions import Mask
    from omg_transformers.labels import LabelSpace


class Batch(TypedDict, total=False):
    """Samples of one task, one label space and one number of frames.

    pixel_values: float32, (B, 3, H, W) or, for clips, (B, T, 3, H, W). pixel_mask: (B, H, W) bool, True = picture.
    annotations: at the padded (H, W); outside the picture everything is void. sizes: (height, width) of each picture.
    part, position, skipped: set by MixedStream (name of the part, number of the batch, messages of left-out samples).
    seeds: set by MixedStream, per sample what chance in training starts from, however samples are split into batches.
    """

    pixel_values: torch.Tensor
    pixel_mask: torch.Tensor
    annotations: list[Annotation]
    sample_ids: list[str]
    sizes: list[tuple[int, int]]
    label_space: LabelSpace
    task: str
    is_clip: bool
    part: str
    position: int
    skipped: list[str]
    seeds: list[int]


def collate(
    samples: Sequence[Sample],
    *,
    task: str,
    mean: Sequence[float] = (0.5, 0.5, 0.5),
    std: Sequence[float] = (0.5, 0.5, 0.5),
    size: tuple[int, int] | None = None,
    divisor: int = 32,
) -> Batch:
    """Stack transformed samples, padded right and bottom to a common multiple of `divisor`.

    mean, std: per channel, in units of 0..1; padding is 0 after normalisation. size: least padded (height, width).
    Raises ValueError when the samples do not share the label space and the number of frames.
    """
    _check(samples, task, divisor)
    sizes = [sample.annotation.size for sample in samples]
    least = size if size is not None else (1, 1)
    height, width = (
        -(-max(least[side], *(content[side] for content in sizes)) // divisor) * divisor for side in (0, 1)
    )
    num_frames = samples[0].annotation.num_frames
    # Normalised in place: (x / 255 - mean) / std = x * scale + shift.
    scale = torch.tensor([1 / (255 * value) for value in std]).view(3, 1, 1)
    shift = torch.tensor([-average / value for average, value in zip(mean, std, strict=True)]).view(3, 1, 1)
    pixel_values = torch.zeros(len(samples), num_frames, 3, height, width)
    pixel_mask = torch.zeros(len(samples), height, width, dtype=torch.bool)
    for row, (sample, (rows, columns)) in enumerate(zip(samples, sizes, strict=True)):
        for frame_index, frame in enumerate(sample.frames):
            pixels = torch.from_numpy(_pixels(frame, sample)).permute(2, 0, 1)
            pixel_values[row, frame_index, :, :rows, :columns] = torch.addcmul(shift, pixels.float(), scale)
        pixel_mask[row, :rows, :columns] = True
    is_clip = num_frames > 1
    return Batch(
        pixel_values=pixel_values if is_clip else pixel_values[:, 0],
        pixel_mask=pixel_mask,
        annotations=[pad_annotation(sample.annotation, (height, width)) for sample in samples],
        sample_ids=[sample.sample_id for sample in samples],
        sizes=sizes,
        label_space=samples[0].label_space,
        task=task,
        is_clip=is_clip,
    )


def pad_annotation(annotation: Annotation, size: tuple[int, int]) -> Annotation:
    """The annotation on a larger canvas, the picture at its top left; the margin becomes void."""
    if annotation.size == size:
        return annotation
    height, width = annotation.size
    if height > size[0] or width > size[1]:
        raise ValueError(f"an annotation of {annotation.size} does not fit into {size}: choose a larger size")

    def canvas(mask: Mask, outside: bool) -> Mask:
        padded = np.full(size, outside, np.bool_, order="F")
        padded[:height, :width] = mask
        return padded

    return redraw(annotation, size, lambda mask: canvas(mask, False), change_void=lambda mask: canvas(mask, True))


def _pixels(frame: Any, sample: Sample) -> np.ndarray[Any, Any]:
    size = sample.annotation.size
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.shape != (*size, 3):
        raise ValueError(
            f"sample {sample.sample_id} has a frame that is no uint8 array of {(*size, 3)}: pass samples through a "
            "transform (TrainTransform, EvalTransform) before collate"
        )
    return frame if frame.flags.writeable else frame.copy()


def _check(samples: Sequence[Sample], task: str, divisor: int) -> None:
    if not samples:
        raise ValueError("samples is empty: a batch needs at least one")
    if divisor < 1:
        raise ValueError(f"divisor is {divisor}: expected at least 1")
    first = samples[0]
    for sample in samples:
        if task not in sample.tasks:
            raise ValueError(f"sample {sample.sample_id} serves {list(sample.tasks)}, not the task {task!r}")
        if sample.annotation.num_frames != first.annotation.num_frames or len(sample.frames) != len(first.frames):
            raise ValueError(
                f"samples {first.sample_id} and {sample.sample_id} have {len(first.frames)} and {len(sample.frames)} "
                "frames: a batch holds clips of one length"
            )
        if sample.label_space is not first.label_space and sample.label_space != first.label_space:
            raise ValueError(
                f"samples {first.sample_id} and {sample.sample_id} use the label spaces {first.label_space.name!r} and "
                f"{sample.label_space.name!r}: a batch has one, map them with MappedSource"
            )
