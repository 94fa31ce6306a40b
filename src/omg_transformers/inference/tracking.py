"""Queries followed from clip to clip: a video of any length in the memory of one clip (MinVIS, as in OMG-Seg)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from scipy.optimize import linear_sum_assignment
from torch.nn import functional

from omg_transformers.model.classifier import sum_clip_features
from omg_transformers.ops.masks import mask_iou

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor

    from omg_transformers.model.modeling import OMGSegModel
    from omg_transformers.model.query_decoder import ImageFeatures
    from omg_transformers.structures import QueryOutput

SUMS = ("class_logit_sum", "iou_logit_sum", "clip_feature_sum", "clip_feature_area")
ROWS = ("states", "counts", *SUMS)


@dataclass(frozen=True, slots=True)
class QueryMemory:
    """All that a video's next clip needs of those before: Q queries in the order of the first clip.

    states: (Q, D) of the latest clip. class_logit_sum: (Q, K + 1) or None, iou_logit_sum: (Q,) or None, over the
    `counts` (Q,) clips of each query. clip_feature_sum: (Q, C) and clip_feature_area: (Q,) or None: features of the
    CLIP backbone summed inside each mask, for names never trained. num_frames: frames answered so far, overlaps
    counted once, in `num_clips` clips.
    """

    states: Tensor
    class_logit_sum: Tensor | None
    iou_logit_sum: Tensor | None
    counts: Tensor
    num_clips: int
    num_frames: int
    clip_feature_sum: Tensor | None = None
    clip_feature_area: Tensor | None = None

    @property
    def class_logits(self) -> Tensor | None:
        """(Q, K + 1): the mean over the clips; None without class names."""
        return None if self.class_logit_sum is None else self.class_logit_sum / self.counts[:, None].clamp(min=1)

    @property
    def iou_logits(self) -> Tensor | None:
        """(Q,): the mean over the clips."""
        return None if self.iou_logit_sum is None else self.iou_logit_sum / self.counts.clamp(min=1)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Those that are not None, by name."""
        parts = {name: getattr(self, name) for name in ROWS}
        return {name: part for name, part in parts.items() if part is not None}

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def with_rows(self, other: QueryMemory, is_chosen: Tensor) -> QueryMemory:
        """What `other` knows of the chosen queries, (Q,) bool, and what this memory knows of the rest."""
        theirs = other.tensors
        parts: dict[str, Any] = {
            name: torch.where(is_chosen.view(-1, *(1,) * (part.dim() - 1)), theirs.get(name, part), part)
            for name, part in self.tensors.items()
        }
        return replace(self, **parts)

    def to(self, device: torch.device) -> QueryMemory:
        """The same memory with its tensors on a device."""
        moved: dict[str, Any] = {name: part.to(device) for name, part in self.tensors.items()}
        return replace(self, **moved)

    def without_names(self, num_classes: int) -> QueryMemory:
        """The same queries, ready for other names: what depends on names, and its counts, start anew."""
        return replace(
            self,
            class_logit_sum=self.states.new_zeros((len(self.states), num_classes + 1), dtype=torch.float32),
            iou_logit_sum=None if self.iou_logit_sum is None else torch.zeros_like(self.iou_logit_sum),
            counts=torch.zeros_like(self.counts),
        )

    def at_most(self, count: int) -> QueryMemory:
        """The same means, but weighing no more than `count` clips against those to come."""
        share = (count / self.counts).clamp(max=1)
        parts: dict[str, Any] = {
            name: (part * share.view(-1, *(1,) * (part.dim() - 1)))
            for name, part in self.tensors.items()
            if name in SUMS
        }
        return replace(self, counts=self.counts.clamp(max=count), **parts)


@dataclass(frozen=True, slots=True)
class AlignedClip:
    """One clip of a video with its queries in the order of the first clip: query q is the same thing in all of them.

    frames: the frames of the video it answers. output: a batch of one; its masks are of just these frames, its logits
    of this clip alone. permutation: (Q,) int64, the place in the clip's own order of each query.
    memory: the state after this clip, with the mean logits. clip_map: (1, T, C, h, w) last map of the backbone.
    """

    frames: slice
    output: QueryOutput
    permutation: Tensor
    memory: QueryMemory
    clip_map: Tensor | None = None


def split_frames(num_frames: int, clip_size: int, overlap: int = 0) -> list[slice]:
    """The clips of a video: `clip_size` frames each, the first `overlap` of which are the last of the clip before.

    Frames missing in the last clip are spread: the last clips are one shorter each, if that suffices without touching
    the first; otherwise the last clip alone is short. A video no longer than the overlap is one clip.
    """
    if num_frames < 1:
        raise ValueError(f"num_frames is {num_frames}: a video has at least 1 frame")
    _check_overlap(clip_size, overlap)
    step = clip_size - overlap
    count = max(1, -(-(num_frames - overlap) // step))
    missing = count * step + overlap - num_frames
    num_shorter = missing if missing < count else 0
    clips = []
    start = 0
    for index in range(count):
        stop = min(start + clip_size - (index >= count - num_shorter), num_frames)
        clips.append(slice(start, stop))
        start = stop - overlap
    return clips


def match_queries(previous_states: Tensor, states: Tensor) -> Tensor:
    """The permutation (Q,) int64 that makes `states[permutation]` continue `previous_states`, both (Q, D).

    It is the one of greatest total cosine. ValueError when shapes differ or values are not finite.
    """
    if previous_states.dim() != 2 or previous_states.shape != states.shape:
        raise ValueError(
            f"states of shape {tuple(states.shape)} cannot continue {tuple(previous_states.shape)}: expected equal "
            "(queries, channels). A memory goes on with the model that made it"
        )
    if not bool(previous_states.isfinite().all() and states.isfinite().all()):
        raise ValueError("states holds NaN or infinity: look for them in the frames, or run the model in float32")
    previous, current = (functional.normalize(part.float(), dim=-1) for part in (previous_states, states))
    cost = 1 - previous @ current.T
    return torch.from_numpy(linear_sum_assignment(cost.detach().cpu().numpy())[1]).to(states.device)


def match_masks(candidates: Tensor, masks: Tensor) -> Tensor:
    """For each of N masks the candidate that shows the same, no candidate twice: (N,) int64, -1 where none is left.

    candidates: (P, ...) bool, masks: (N, ...) bool of the same size. The assignment has the greatest total IoU.
    """
    overlaps = mask_iou(candidates, masks)
    chosen, matched = linear_sum_assignment(overlaps.cpu().numpy(), maximize=True)
    result = torch.full((len(masks),), -1)
    result[torch.from_numpy(matched)] = torch.from_numpy(chosen)
    return result.to(masks.device)


def align_clip(
    output: QueryOutput,
    memory: QueryMemory | None,
    *,
    overlap: int = 0,
    clip_features: ImageFeatures | None = None,
) -> AlignedClip:
    """Bring the queries of the next clip into the video's order and add its logits to the memory.

    output: one clip's (a batch of one), whose first `overlap` frames are known already, unless `memory` is None:
    then it is the video's first clip. clip_features: of the clip, if the memory shall hold what the CLIP backbone
    sees inside the masks.
    """
    if len(output) != 1 or output.query_states is None:
        raise ValueError(
            f"output is a batch of {len(output)} {'with' if output.query_states is not None else 'without'} "
            "query_states: expected one clip with query_states; follow several videos one by one"
        )
    known = overlap if memory is not None else 0
    num_new = output.mask_logits.shape[2] - known
    if num_new < 1:
        raise ValueError(
            f"a clip of {output.mask_logits.shape[2]} frames with overlap {overlap} brings no new frame: "
            "give longer clips or less overlap"
        )
    states = output.query_states[0].detach()
    order = torch.arange(len(states), device=states.device) if memory is None else match_queries(memory.states, states)
    aligned = replace(
        output,
        class_logits=None if output.class_logits is None else output.class_logits[:, order],
        mask_logits=output.mask_logits[:, order, known:],
        iou_logits=None if output.iou_logits is None else output.iou_logits[:, order],
        query_states=output.query_states[:, order],
    )
    after = _extended(memory, aligned, states[order])
    if clip_features is not None:
        sums, areas = sum_clip_features(
            clip_features.clip_map[:, known:], aligned.mask_logits, _content(clip_features, num_new)
        )
        after = replace(
            after,
            clip_feature_sum=sums[0] if memory is None else _sum("clip_features", memory.clip_feature_sum, sums[0]),
            clip_feature_area=areas[0] if memory is None else _sum("clip_areas", memory.clip_feature_area, areas[0]),
        )
    return AlignedClip(slice(after.num_frames - num_new, after.num_frames), aligned, order, after)


@torch.no_grad()
def track_clips(
    model: OMGSegModel,
    clips: Iterable[Tensor],
    *,
    class_embeds: Tensor | None = None,
    pixel_mask: Tensor | None = None,
    overlap: int = 0,
    memory: QueryMemory | None = None,
) -> Iterator[AlignedClip]:
    """Run the clips of one video through the model, one at a time, and keep its queries in one order.

    clips: (T, 3, H, W) each, normalised and padded, in the order of the video; `split_frames` says which frames.
    class_embeds: (K, P, text_dim). pixel_mask: (H, W), the same for all frames. memory: go on after an earlier clip;
    then the first clip overlaps it, too. Nothing of a clip is kept here once the next one is asked for.
    """
    if overlap < 0:
        raise ValueError(f"overlap is {overlap}: expected 0 or more frames")
    mask = None if pixel_mask is None else pixel_mask[None]
    for clip in clips:
        if clip.dim() != 4:
            raise ValueError(f"a clip has shape {tuple(clip.shape)}: expected (frames, 3, H, W)")
        features = model.get_image_features(clip[None], mask)
        output = model(image_features=features, class_embeds=class_embeds).to_query_output()
        known = overlap if memory is not None else 0
        aligned = align_clip(output, memory, overlap=overlap)
        memory = aligned.memory
        yield replace(aligned, clip_map=features.clip_map[:, known:])


def _extended(memory: QueryMemory | None, aligned: QueryOutput, states: Tensor) -> QueryMemory:
    """The memory after one more clip, given in the video's order."""
    num_new = aligned.mask_logits.shape[2]
    classes = None if aligned.class_logits is None else aligned.class_logits[0].detach().float()
    ious = None if aligned.iou_logits is None else aligned.iou_logits[0].detach().float()
    if memory is None:
        counts = torch.ones(len(states), dtype=torch.int64, device=states.device)
        return QueryMemory(states, classes, ious, counts, 1, num_new)
    return replace(
        memory,
        states=states,
        class_logit_sum=_sum("class_logits", memory.class_logit_sum, classes),
        iou_logit_sum=_sum("iou_logits", memory.iou_logit_sum, ious),
        counts=memory.counts + 1,
        num_clips=memory.num_clips + 1,
        num_frames=memory.num_frames + num_new,
    )


def _content(features: ImageFeatures, num_frames: int) -> Tensor | None:
    """Which cells of the last map are picture: (1, 1, T * h * w) bool, None: all."""
    mask = features.content.repeat(num_frames).mask((features.clip_map.shape[-2], features.clip_map.shape[-1]))
    return None if mask is None else mask.reshape(1, 1, -1)


def _sum(name: str, before: Tensor | None, now: Tensor | None) -> Tensor | None:
    if before is None and now is None:
        return None
    if before is None or now is None or before.shape != now.shape:
        shapes = [None if part is None else tuple(part.shape) for part in (before, now)]
        raise ValueError(
            f"{name} has shape {shapes[1]} but the clips before had {shapes[0]}: ask for the same names in all clips, "
            "or start again with memory=None"
        )
    return before + now


def _check_overlap(clip_size: int, overlap: int) -> None:
    if clip_size < 1:
        raise ValueError(f"clip_size is {clip_size}: expected at least 1 frame")
    if not 0 <= overlap < clip_size:
        raise ValueError(
            f"overlap is {overlap}: expected 0 to {clip_size - 1}, less than clip_size ({clip_size}), "
            "so that each clip brings new frames"
        )
