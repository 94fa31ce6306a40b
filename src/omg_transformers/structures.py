"""Values that cross a border between the model, a head, the data and a metric.

Every mask has a time axis: a picture is a clip of one frame. Sizes are (height, width), points are (x, y).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    from torch import Tensor

    from omg_transformers.labels import LabelSpace


# What an annotation may tell beyond outlines of regions. classes: what each is; instances: things one by one; scene: a
# class or void at every pixel; tracks: which region of another frame is the same.
AnnotationPart: TypeAlias = Literal["classes", "instances", "scene", "tracks"]

# What the SAM family fills places with where an object has no point or no box; also the label of such a point.
NO_PROMPT = -10
# Mask logits and mask prompts have one cell per 4 x 4 pixels of the padded input.
MASK_STRIDE = 4


class RLE(TypedDict):
    """A binary mask as COCO's compressed run-length encoding: `size` is [height, width]."""

    size: list[int]
    counts: bytes


@dataclass(frozen=True, slots=True)
class PromptHints:
    """What was said about N objects beyond the one point or box that a query holds; all about the first frame.

    is_given: (B, N) bool, of which objects more was said; the others have no points, boxes or masks here.
    points_xy_norm: (B, N, P, 2) in [0, 1] of the picture. point_labels: (B, N, P) 1 inside, 0 outside, -10 no point.
    boxes_xyxy_norm: (B, N, 4), NaN: none. masks: (B, N, h, w) share of each cell of the padded mask grid, or None.
    has_mask: (B, N) bool.
    """

    is_given: Tensor
    points_xy_norm: Tensor
    point_labels: Tensor
    boxes_xyxy_norm: Tensor
    masks: Tensor | None
    has_mask: Tensor


@dataclass(frozen=True, slots=True)
class Queries:
    """What a query encoder hands to the query decoder: Q questions about B clips.

    content: (B, Q, D) initial query features. position: (B, Q, D) added to queries and keys in attention.
    is_isolated: the queries do not see each other (prompts are independent of one another).
    anchors_xy_norm: (B, Q, 2) places in the picture the queries are about, (x, y) in [0, 1] of the content, or None.
    hints: what else was said about the first N queries, or None.
    regions_xyxy_norm: (B, Q, 4) boxes around what the queries are about, in [0, 1] of the content, or None.
    """

    content: Tensor
    position: Tensor
    is_isolated: bool = False
    anchors_xy_norm: Tensor | None = None
    hints: PromptHints | None = None
    regions_xyxy_norm: Tensor | None = None


@dataclass(frozen=True, slots=True)
class QueryOutput:
    """What the shared decoder predicts for a batch.

    class_logits: (B, Q, K + 1), void ("no object") last; None when no class names were given.
    mask_logits: (B, Q, T, h, w) on the padded mask grid, 1/4 of the input.
    iou_logits: (B, Q) quality of each mask. query_states: (B, Q, D) decoder states, before the last norm.
    input_size: size of the padded input the mask grid spans; None: the grid spans just the content.
    content_sizes: per sample the size of the picture inside the padded input (top left); None: all of it.
    backbone_class_logits: (B, Q, K) in training, a second opinion on the names; heads need not look at it.
    """

    class_logits: Tensor | None
    mask_logits: Tensor
    iou_logits: Tensor | None = None
    query_states: Tensor | None = None
    backbone_class_logits: Tensor | None = None
    input_size: tuple[int, int] | None = None
    content_sizes: tuple[tuple[int, int], ...] | None = None

    def __len__(self) -> int:
        return len(self.mask_logits)

    def detach(self) -> QueryOutput:
        """The same numbers without their gradients, for results."""
        return self.apply(lambda value: value.detach())

    def select(self, index: int) -> QueryOutput:
        """The output of one sample, as a batch of one."""
        rows = slice(index, index + 1)
        sizes = None if self.content_sizes is None else self.content_sizes[rows]
        return replace(self.apply(lambda value: value[rows]), content_sizes=sizes)

    def apply(self, function: Callable[[Tensor], Tensor]) -> QueryOutput:
        """The same with `function` of each prediction that is there; they all have a row per sample."""
        names = ("class_logits", "mask_logits", "iou_logits", "query_states", "backbone_class_logits")
        found = {name: getattr(self, name) for name in names}
        parts: dict[str, Any] = {name: function(value) for name, value in found.items() if value is not None}
        return replace(self, **parts)


@dataclass(frozen=True, slots=True)
class QueryTargets:
    """What the queries of one sample should predict: N segments, in any order.

    labels: (N,) int64 in [0, K), or -1: the mask counts, the class is not known.
    masks: (N, T, H, W) bool. unknown: (T, H, W) bool or None: places where nothing is known (void, crowds);
    no loss and no matching cost may look there. is_certain: (K,) bool or None: classes of which nothing was left out;
    a query without a segment may show one of the others. None: of all classes.
    """

    labels: Tensor
    masks: Tensor
    unknown: Tensor | None = None
    is_certain: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """One annotated thing or stuff region, through all frames of a clip.

    category_id: index into the sample's label space, -1: no class. masks: one per frame, None where it is absent.
    """

    category_id: int
    masks: tuple[RLE | None, ...]
    track_id: int = -1
    is_crowd: bool = False


@dataclass(frozen=True, slots=True)
class Annotation:
    """The truth about one clip, in one form for every task and data set.

    size: (height, width) of every mask. is_thing: one flag per class of the label space (its length is K).
    void: per frame the region nobody labelled, or None. certain_classes: classes of which the segments are all that
    there is (crowds included); None: all classes.
    """

    size: tuple[int, int]
    is_thing: tuple[bool, ...]
    segments: tuple[Segment, ...]
    void: tuple[RLE | None, ...] = (None,)
    certain_classes: frozenset[int] | None = None

    @property
    def num_frames(self) -> int:
        """T; 1 for a picture."""
        return len(self.void)

    @property
    def num_classes(self) -> int:
        """K, void not counted."""
        return len(self.is_thing)

    @property
    def is_exhaustive(self) -> bool:
        """Whether what no segment and no void covers shows none of the classes."""
        return self.certain_classes is None or self.certain_classes.issuperset(range(self.num_classes))


@dataclass(frozen=True, slots=True)
class Sample:
    """One annotated picture or clip of a data stream. Frames are decoded late.

    frames: encoded bytes, paths, or (H, W, 3) uint8 arrays. tasks: names of the heads its annotation can serve.
    """

    sample_id: str
    frames: tuple[bytes | Path | np.ndarray[Any, Any], ...]
    annotation: Annotation
    label_space: LabelSpace
    tasks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Segments:
    """The result for one sample: N segments over T frames. Either `id_map` or `rles` holds the masks.

    ids: (N,) int64, > 0, unique. labels: (N,) int64, -1 where there is no class. scores: (N,) float32 in [0, 1].
    id_map: (T, H, W) int32, the id at each pixel, 0 = void: results that do not overlap (semantic, panoptic).
    rles: per segment one mask per frame (None: absent): results that may overlap (instances, prompts).
    """

    size: tuple[int, int]
    ids: Tensor
    labels: Tensor
    scores: Tensor
    id_map: Tensor | None = None
    rles: tuple[tuple[RLE | None, ...], ...] | None = None
    info: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_frames(self) -> int:
        """T; 1 for a picture."""
        if self.id_map is not None:
            return len(self.id_map)
        return len(self.rles[0]) if self.rles else 1

    def mask(self, index: int) -> Tensor:
        """The mask of segment `index`: (T, H, W) bool."""
        from omg_transformers.ops.masks import decode_rles

        if self.id_map is not None:
            return self.id_map == self.ids[index].to(self.id_map)
        if self.rles is None:
            raise ValueError("these Segments hold neither `id_map` nor `rles`: give one of them")
        return decode_rles(self.rles[index], self.size)


def check_sizes(sizes: Sequence[tuple[int, int]], batch_size: int) -> None:
    """Refuse `sizes` that do not give one positive (height, width) per sample."""
    if len(sizes) != batch_size:
        raise ValueError(
            f"sizes has {len(sizes)} entries for a batch of {batch_size}: give one (height, width) per picture or clip"
        )
    for size in sizes:
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f"sizes holds {tuple(size)}: expected (height, width), both at least 1 pixel")
