"""Checks of heads that ask their own questions in training (`MakesQueryInputs`); others pass them by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from omg_transformers.plugins import MakesQueryInputs
from omg_transformers.testing.results import require
from omg_transformers.testing.scenes import SIZE, empty_annotation, make_scene

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from omg_transformers.plugins import TaskHead
    from omg_transformers.structures import QueryTargets

Questions = tuple["dict[str, Tensor]", "list[QueryTargets]"]


SEEDS = range(4)  # a head may choose between kinds of questions by chance


def _ask(head: MakesQueryInputs, targets: Sequence[QueryTargets], seed: int) -> Questions:
    return head.query_inputs(targets, size=SIZE, generator=torch.Generator().manual_seed(seed))


def _batch(head: TaskHead) -> list[QueryTargets]:
    return [make_scene(head, seed).targets for seed in range(3)]


def check_query_inputs_are_valid(head: TaskHead) -> None:
    """Inputs are finite, (B, N, ...), one per target, with the same N for every sample."""
    if isinstance(head, MakesQueryInputs):
        batch = _batch(head)
        for seed in SEEDS:
            count = _require_questions(_ask(head, batch, seed), batch)
            require(count > 0, "no question was asked about scenes with segments")


def _require_questions(questions: Questions, batch: Sequence[QueryTargets]) -> int:
    inputs, targets = questions
    require(len(targets) == len(batch), f"{len(targets)} targets came back for a batch of {len(batch)}")
    require(len(inputs) > 0, "query_inputs gave no input")
    counts = {len(target.labels) for target in targets}
    require(len(counts) == 1, f"samples have different numbers of questions: {sorted(counts)}")
    (count,) = counts
    for name, tensor in inputs.items():
        shape = tuple(tensor.shape)
        require(shape[:2] == (len(batch), count), f"{name} has shape {shape}, expected ({len(batch)}, {count}, ...)")
        require(bool(torch.isfinite(tensor).all()), f"{name} holds NaN or infinite values")
    for target in targets:
        require(len(target.masks) == count, f"{len(target.masks)} masks for {count} labels")
    return count


def check_query_inputs_follow_the_generator(head: TaskHead) -> None:
    """The same generator state gives the same questions: a training run can be repeated and resumed."""
    if isinstance(head, MakesQueryInputs):
        batch = _batch(head)
        why = "between two calls with equal generators"
        for seed in SEEDS:
            (first, first_targets), (again, again_targets) = _ask(head, batch, seed), _ask(head, batch, seed)
            require(first.keys() == again.keys(), f"{sorted(first)} became {sorted(again)} {why}")
            for name, tensor in first.items():
                require(torch.equal(tensor, again[name]), f"{name} differs {why}")
            for one, other in zip(first_targets, again_targets, strict=True):
                require(torch.equal(one.masks, other.masks), f"targets differ {why}")


def check_query_inputs_hit_their_targets(head: TaskHead) -> None:
    """Question i is about target i: its points (`*points`, xy) lie in the mask, its box (`*boxes`, xyxy) touches it.

    Each target is one that was given, or has an empty mask: a place that was filled up.
    """
    if not isinstance(head, MakesQueryInputs):
        return
    batch = _batch(head)
    for seed in SEEDS:
        inputs, targets = _ask(head, batch, seed)
        for sample, (given, target) in enumerate(zip(batch, targets, strict=True)):
            questions = {name: tensor[sample] for name, tensor in inputs.items()}
            _require_hits(questions, given, target, f"sample {sample}")


def _require_hits(questions: dict[str, Tensor], given: QueryTargets, target: QueryTargets, who: str) -> None:
    for index, (label, mask) in enumerate(zip(target.labels, target.masks, strict=True)):
        if not bool(mask.any()):
            continue
        matches = (given.masks == mask).flatten(1).all(1) & (given.labels == label)
        require(bool(matches.any()), f"target {index} of {who} is none of the targets that were given")
        for name, tensor in questions.items():
            _require_hit(name, tensor[index], mask.any(0), f"query {index} of {who}")


def _require_hit(name: str, values: Tensor, mask: Tensor, who: str) -> None:
    if name.endswith("points"):
        columns, rows = values.reshape(-1, 2).floor().long().unbind(-1)
        height, width = mask.shape
        inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
        require(bool(inside.all()), f"{name} of {who} leaves the input: {values.tolist()}, size {(height, width)}")
        require(bool(mask[rows, columns].all()), f"{name} of {who} lies outside its target: {values.tolist()}")
    if name.endswith("boxes"):
        x1, y1, x2, y2 = (float(value) for value in values.reshape(4))
        rows, columns = mask.nonzero().unbind(-1)
        touched = (columns + 1 > x1) & (columns < x2) & (rows + 1 > y1) & (rows < y2)
        require(bool(touched.any()), f"{name} of {who} does not touch its target: {values.tolist()}")


def check_query_inputs_of_empty_scenes(head: TaskHead) -> None:
    """A sample with nothing to ask about, alone or in a batch, still gives inputs of the right shapes."""
    if isinstance(head, MakesQueryInputs):
        full = make_scene(head)
        nothing = head.targets(empty_annotation(full.annotation))
        for batch in ([nothing], [full.targets, nothing]):
            for seed in SEEDS:
                _require_questions(_ask(head, batch, seed), batch)
