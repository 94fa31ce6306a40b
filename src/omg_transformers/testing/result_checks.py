"""Checks of what a task head makes of the model's output: results and figures."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from omg_transformers.structures import QueryOutput
from omg_transformers.testing.results import described, require, require_same, require_same_rows, require_valid
from omg_transformers.testing.scenes import (
    CONFIDENT,
    NUM_CLASSES,
    SIZE,
    empty_annotation,
    make_scene,
    map_tensors,
    noisy_output,
    postprocess,
    scene_of,
    thing_flags,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from omg_transformers.plugins import Metric, TaskHead
    from omg_transformers.structures import Segments

TINY_SIZES = ((1, 1), (1, SIZE[1]), (SIZE[0], 1))


def check_perfect_output_scores_one(head: TaskHead) -> None:
    """If the training targets were predicted exactly, the main figure is 1: targets, results and metric agree."""
    metric = head.metric(num_classes=NUM_CLASSES)
    for seed in range(4):
        scene = make_scene(head, seed)
        metric.update(scene.predict(), scene.annotation)
    name, value = next(iter(metric.compute().items()))
    require(abs(value - 1) < 1e-6, f"{name} is {value} on perfect predictions")


def check_results_are_valid(head: TaskHead) -> None:
    """Results keep what `Segments` promises, for sure and unsure outputs, at the grid's size, below and above it."""
    for seed in range(2):
        scene = make_scene(head, seed)
        for output in (scene.output, noisy_output(scene.output, seed)):
            for size in (SIZE, (20, 31), (70, 90)):
                results = postprocess(head, output, size=size)
                require(isinstance(results, list), f"postprocess gave a {type(results).__name__}, expected a list")
                require(len(results) == 1, f"postprocess gave {len(results)} results for one sample")
                _require_result(head, results[0], output, size=size)


def _require_result(head: TaskHead, result: Segments, output: QueryOutput, *, size: tuple[int, int]) -> None:
    require_valid(result, size=size, num_frames=output.mask_logits.shape[2], num_classes=NUM_CLASSES)
    if head.spec.has_classes:
        require(bool((result.labels >= 0).all()), "a head with classes gave a segment without one (label -1)")


def check_query_order_is_irrelevant(head: TaskHead) -> None:
    """Queries are a set: permuting them permutes the result and changes nothing else."""
    scene = make_scene(head)
    count = scene.output.mask_logits.shape[1]
    orders = (torch.arange(count).flip(0), torch.randperm(count, generator=torch.Generator().manual_seed(1)))
    for order in orders:
        shuffled = map_tensors(scene.output, partial(torch.index_select, dim=1, index=order))
        require_same(scene.predict(), scene.predict(shuffled), "the queries were permuted")


def check_batch_is_independent(head: TaskHead) -> None:
    """A sample gets the same answer alone and beside another one, first or last, of another size or not."""
    first, second = make_scene(head, 0), make_scene(head, 1)
    count = min(first.output.mask_logits.shape[1], second.output.mask_logits.shape[1])
    alone = [map_tensors(scene.output, lambda tensor: tensor[:, :count]) for scene in (first, second)]
    sizes = [SIZE, (25, 60)]
    both = _stacked(alone)
    results = head.postprocess(both, sizes=sizes, is_thing=thing_flags(head))
    require(len(results) == 2, f"postprocess gave {len(results)} results for a batch of 2")
    for scene, output, result, size in zip((first, second), alone, results, sizes, strict=True):
        require_same(scene.predict(output, size=size), result, "a neighbour joined the batch")


def _stacked(outputs: Sequence[QueryOutput]) -> QueryOutput:
    def column(name: str) -> torch.Tensor | None:
        rows = [getattr(output, name) for output in outputs]
        return None if rows[0] is None else torch.cat(rows)

    return QueryOutput(column("class_logits"), torch.cat([o.mask_logits for o in outputs]), column("iou_logits"))


def check_input_is_not_written(head: TaskHead) -> None:
    """`postprocess` leaves the tensors it was given as they were."""
    scene = make_scene(head)
    for name in ("class_logits", "mask_logits", "iou_logits"):
        output = noisy_output(scene.output, 0)
        before = getattr(output, name)
        before = None if before is None else before.clone()
        scene.predict(output)
        require(before is None or torch.equal(before, getattr(output, name)), f"{name} was written to")


def check_metric_merges(head: TaskHead) -> None:
    """Shards merged equal one pass, empty shards included: the metric is right under `accelerate launch`."""
    whole, left, right, idle = (head.metric(num_classes=NUM_CLASSES) for _ in range(4))
    for seed in range(5):
        scene = make_scene(head, seed)
        result = scene.predict(noisy_output(scene.output, seed))
        whole.update(result, scene.annotation)
        (left if seed % 2 else right).update(result, scene.annotation)
    merged = _sent(left)
    for shard in (right, idle):
        merged.merge(_sent(shard))
    _require_same_figures(merged.compute(), whole.compute(), "shards were merged")
    for shard in (left, right):
        _sent(idle).merge(shard)  # merging must work in both directions


def _sent(metric: Metric) -> Metric:
    """The metric as another process receives it."""
    copy: Metric = pickle.loads(pickle.dumps(metric))
    return copy


def _require_same_figures(first: dict[str, float], second: dict[str, float], why: str) -> None:
    require(first.keys() == second.keys(), f"{why}: figures {sorted(first)} became {sorted(second)}")
    for name, value in first.items():
        same = math.isclose(value, second[name], abs_tol=1e-9) or (math.isnan(value) and math.isnan(second[name]))
        require(same, f"{why}: {name} is {value} instead of {second[name]}")


def check_figures_are_bounded(head: TaskHead) -> None:
    """Every figure is a float in [0, 1] or NaN: before the first sample, and after good and bad ones."""
    metric = head.metric(num_classes=NUM_CLASSES)
    _require_bounded(metric.compute())
    for seed in range(2):
        scene = make_scene(head, seed)
        for output in (noisy_output(scene.output, seed), scene.output):
            metric.update(scene.predict(output), scene.annotation)
            _require_bounded(metric.compute())
    _require_same_figures(metric.compute(), metric.compute(), "compute() was called twice")


def _require_bounded(figures: dict[str, float]) -> None:
    require(len(figures) > 0, "compute() gave no figure")
    for name, value in figures.items():
        require(isinstance(value, float), f"{name} is a {type(value).__name__}, expected a float")
        require(math.isnan(value) or 0 <= value <= 1, f"{name} is {value}, expected [0, 1] or NaN")


def check_wrong_sizes_raise(head: TaskHead) -> None:
    """One positive (height, width) per sample, or a ValueError that names `sizes`."""
    output = make_scene(head).output
    for sizes in ([SIZE, SIZE], [], [(0, SIZE[1])]):
        _require_error(head, output, ValueError, "sizes", sizes=sizes)


def check_missing_classes_raise(head: TaskHead) -> None:
    """A head with classes refuses an output without `class_logits` by a ValueError that names them; others do not."""
    scene = make_scene(head)
    output = replace(scene.output, class_logits=None)
    if head.spec.has_classes:
        _require_error(head, output, ValueError, "class_logits", sizes=[SIZE])
    else:
        _require_result(head, scene.predict(output), output, size=SIZE)


def check_unknown_option_raises(head: TaskHead) -> None:
    """A misspelt option is a TypeError that names it, never ignored."""
    _require_error(head, make_scene(head).output, TypeError, "no_such_option", sizes=[SIZE], no_such_option=1)


def _require_error(
    head: TaskHead,
    output: QueryOutput,
    kind: type[Exception],
    word: str,
    *,
    sizes: Sequence[tuple[int, int]],
    **options: int,
) -> None:
    try:
        head.postprocess(output, sizes=sizes, is_thing=thing_flags(head), **options)
    except kind as error:
        require(word in str(error), f"the message does not name `{word}`: {error}")
        return
    except Exception as error:
        raise AssertionError(f"expected a {kind.__name__} that names `{word}`, got {error!r}") from error
    accepted = ", ".join(f"{name}={value!r}" for name, value in {"sizes": sizes, **options}.items())
    raise AssertionError(f"expected a {kind.__name__} that names `{word}`, but postprocess accepted {accepted}")


def check_empty_scene(head: TaskHead) -> None:
    """A scene with nothing in it has no targets, gives a valid result and can be scored."""
    scene = scene_of(head, empty_annotation(make_scene(head).annotation))
    result = scene.predict()
    _require_result(head, result, scene.output, size=SIZE)
    metric = head.metric(num_classes=NUM_CLASSES)
    metric.update(result, scene.annotation)
    _require_bounded(metric.compute())


def check_void_queries(head: TaskHead) -> None:
    """When every query says "no object" the result is valid and sure of nothing."""
    scene = make_scene(head)
    nothing = scene.output.mask_logits.new_full(scene.output.mask_logits.shape, -CONFIDENT)
    class_logits = scene.output.class_logits
    if class_logits is not None:
        class_logits = torch.full_like(class_logits, -CONFIDENT)
        class_logits[..., -1] = CONFIDENT
    iou_logits = torch.full(nothing.shape[:2], -CONFIDENT)
    for masks in (nothing, scene.output.mask_logits) if head.spec.has_classes else (nothing,):
        result = scene.predict(QueryOutput(class_logits, masks, iou_logits))
        _require_result(head, result, scene.output, size=SIZE)
        sure = [index for index in range(len(result)) if result.scores[index] > 0.5 and result.mask(index).any()]
        require(not sure, f"{len(sure)} segments score above 0.5 although no query saw an object")


def check_half_precision(head: TaskHead) -> None:
    """bfloat16 outputs of a sure model give the float32 answer."""
    scene = make_scene(head)
    half = map_tensors(scene.output, lambda tensor: tensor.to(torch.bfloat16))
    result = scene.predict(half)
    _require_result(head, result, half, size=SIZE)
    require_same(scene.predict(), result, "the output was cast to bfloat16", score_tolerance=1e-2)


def check_tiny_sizes(head: TaskHead) -> None:
    """Results of 1 x 1 pixel, and one pixel high or wide, are valid, from large and from tiny mask grids."""
    scene = make_scene(head)
    for size in TINY_SIZES:
        grid = map_tensors(scene.output, partial(_shrunk, size=size))
        for output in (scene.output, grid):
            _require_result(head, scene.predict(output, size=size), output, size=size)


def _shrunk(tensor: torch.Tensor, *, size: tuple[int, int]) -> torch.Tensor:
    return tensor[..., : size[0], : size[1]] if tensor.ndim == 5 else tensor


def check_still_clip_equals_picture(head: TaskHead) -> None:
    """A clip of two equal frames gives the picture's answer in both."""
    scene = make_scene(head)
    frames = scene.output.mask_logits[:, :, :1]
    picture = scene.predict(replace(scene.output, mask_logits=frames))
    clip = scene.predict(replace(scene.output, mask_logits=frames.repeat(1, 1, 2, 1, 1)))
    require_valid(clip, size=SIZE, num_frames=2, num_classes=NUM_CLASSES)
    for frame in range(2):
        require_same_rows(described(picture), described(clip, frames=[frame]), f"frame {frame} of a still clip")


def check_padding_is_irrelevant(head: TaskHead) -> None:
    """The same content at the top left of a larger padded input gives the same answer, whatever the padding says."""
    scene = make_scene(head)
    height, width = SIZE
    for stride in (1, 4):
        content = (height * stride, width * stride)
        plain = replace(scene.output, input_size=content, content_sizes=(content,))
        noise = torch.Generator().manual_seed(0)
        masks = F.pad(scene.output.mask_logits, (0, 17, 0, 7))
        masks[..., width:] = CONFIDENT * torch.randn(masks[..., width:].shape, generator=noise)
        masks[..., height:, :] = CONFIDENT * torch.randn(masks[..., height:, :].shape, generator=noise)
        padded = replace(
            scene.output,
            mask_logits=masks,
            input_size=((height + 7) * stride, (width + 17) * stride),
            content_sizes=(content,),
        )
        for size in (SIZE, content):
            require_same(
                scene.predict(plain, size=size), scene.predict(padded, size=size), f"padding at stride {stride}"
            )
