"""Checks of what a task head is: its members, its example, its training targets."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from omg_transformers.ops.masks import decode_rles
from omg_transformers.plugins import API_VERSION, HeadSpec, TaskHead
from omg_transformers.structures import Annotation, QueryTargets
from omg_transformers.testing.results import require
from omg_transformers.testing.scenes import (
    NUM_CLASSES,
    SIZE,
    empty_annotation,
    example,
    make_scene,
    with_unknown_regions,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


def check_contract(head: TaskHead) -> None:
    """The head has every member of the protocol, this API version and a complete spec."""
    members = ("spec", "targets", "postprocess", "metric", "example_annotation")
    missing = [name for name in members if not hasattr(head, name)]
    require(not missing, f"{type(head).__name__} lacks {', '.join(missing)}")
    require(isinstance(head, TaskHead), f"{type(head).__name__} is not a TaskHead")
    require(head.api_version == API_VERSION, f"api_version is {head.api_version}, expected {API_VERSION}")
    require(isinstance(head.spec, HeadSpec), f"spec is a {type(head.spec).__name__}, expected HeadSpec")
    for name in ("name", "query_type"):
        value = getattr(head.spec, name)
        require(isinstance(value, str) and value.isidentifier(), f"spec.{name} is {value!r}, expected an identifier")


def check_no_parameters(head: TaskHead) -> None:
    """The head owns no tensors: all weights live in the shared model."""
    require(not isinstance(head, torch.nn.Module), "the head is a torch.nn.Module: it must be a plain object")
    owned = [name for name, value in _attributes(head) if _holds_weights(value)]
    require(not owned, f"these attributes hold tensors or modules: {sorted(set(owned))}")


def _attributes(head: TaskHead) -> Iterator[tuple[str, Any]]:
    for owner in (head, *type(head).__mro__):
        yield from getattr(owner, "__dict__", {}).items()


def _holds_weights(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_weights, value.values()))
    if isinstance(value, list | tuple | set | frozenset):
        return any(map(_holds_weights, value))
    return isinstance(value, torch.Tensor | torch.nn.Module)


def check_picklable(head: TaskHead) -> None:
    """The head crosses a process border (data-loader workers, `accelerate launch`) and stays the same head."""
    copy = pickle.loads(pickle.dumps(head))
    require(copy.spec == head.spec, f"the unpickled head has spec {copy.spec}, before it was {head.spec}")


def check_example_annotation(head: TaskHead) -> None:
    """The example has the size and classes asked for, shows something, and follows its seed."""
    first, again, other = example(head), example(head), example(head, seed=1)
    require(isinstance(first, Annotation), f"example_annotation gave a {type(first).__name__}, expected Annotation")
    require(tuple(first.size) == SIZE, f"size is {first.size}, asked for {SIZE}")
    require(first.num_classes == NUM_CLASSES, f"is_thing has {first.num_classes} flags for {NUM_CLASSES} classes")
    require(len(first.segments) > 0, "the example holds no segment")
    require(first == again, "the same seed gave two different examples")
    require(first != other, "two seeds gave the same example")
    require(first.is_thing == other.is_thing, "is_thing depends on the seed: it must follow from num_classes")
    if head.spec.is_video:
        require(first.num_frames > 1, "the example of a video head has one frame: it must be a clip")
    else:
        require(first.num_frames == 1, f"the example of a picture head has {first.num_frames} frames")
    for segment in first.segments:
        require(decode_rles(segment.masks, SIZE).any().item() is True, "a segment of the example is empty")


def check_targets_are_valid(head: TaskHead) -> None:
    """Targets have the shapes, dtypes and label range of `QueryTargets`, also for a scene with nothing in it."""
    for annotation in (example(head), empty_annotation(example(head))):
        targets = head.targets(annotation)
        require(isinstance(targets, QueryTargets), f"targets gave a {type(targets).__name__}, expected QueryTargets")
        count, frames = len(targets.labels), annotation.num_frames
        labels, masks = targets.labels, targets.masks
        require(labels.dtype == torch.int64 and labels.ndim == 1, f"labels is {labels.dtype} {tuple(labels.shape)}")
        require(bool(((labels >= -1) & (labels < NUM_CLASSES)).all()), f"labels out of range: {labels.tolist()}")
        expected = (count, frames, *SIZE)
        require(tuple(masks.shape) == expected, f"masks has shape {tuple(masks.shape)}, expected {expected}")
        require(masks.dtype == torch.bool, f"masks has dtype {masks.dtype}, expected torch.bool")
        unknown = targets.unknown
        if unknown is not None:
            require(unknown.dtype == torch.bool, f"unknown has dtype {unknown.dtype}, expected torch.bool")
            require(tuple(unknown.shape) == expected[1:], f"unknown has shape {tuple(unknown.shape)}")
        require(count == 0 or len(annotation.segments) > 0, f"{count} targets for a scene with nothing in it")
        require(count > 0 or len(annotation.segments) == 0, "no target for a scene with segments")


def check_void_and_crowds_are_unknown(head: TaskHead) -> None:
    """No target and no background is claimed where the annotation does not know: in void and in crowds.

    A head that joins the segments of a class may count a crowd to its class.
    """
    annotation, void, crowd, neighbour = with_unknown_regions(make_scene(head).annotation)
    targets = head.targets(annotation)
    unknown = targets.unknown
    if unknown is None:
        raise AssertionError("targets.unknown is None although the annotation has void and crowd regions")
    require(bool(unknown[void].all()), f"{int((~unknown[void]).sum())} void pixels are not in targets.unknown")
    is_open = crowd & ~unknown
    joined = [mask for mask in targets.masks if bool((mask & is_open).any())]
    for mask in joined:
        require(bool(mask[neighbour].all()), "a crowd became a target of its own: it must be in targets.unknown")
        is_open &= ~mask
    require(not bool(is_open.any()), f"{int(is_open.sum())} crowd pixels are not in targets.unknown")
