"""What the classes tell once everything was counted: void taught as a class, ids that are shifted by one."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from omg_transformers.data.doctor.report import Problem
from omg_transformers.labels.names import loose_name
from omg_transformers.metrics.label_png import listed

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from numpy.typing import NDArray

    from omg_transformers.data.doctor.files import JsonFacts
    from omg_transformers.data.doctor.report import SplitReport

VOID_NAMES = frozenset(
    (
        "void", "unlabeled", "unlabelled", "unlabel", "unknown", "background", "bg", "ignore", "ignored",
        "ignore region", "don't care", "dontcare", "none", "null", "undefined", "out of roi", "not labeled",
        "not labelled", "no label",
    )
)  # fmt: skip
# Splits are compared when so many classes occur in both, by the cosine of their shares (square roots, so that one
# large class does not decide). Unrelated classes have a likeness around 0.5: shifted by one it must stand out from that
# of all shifts, and unshifted it must not. Sound splits of 25 pictures have 0.73 unshifted, 0.43 shifted.
MIN_CLASSES = 5
LIKE, CLEARLY, HARDLY = 0.6, 0.2, 0.5
MUCH_VOID = 0.05


def check_classes(split: SplitReport) -> Iterator[Problem]:
    """The faults of one split's histogram."""
    space, counts = split.label_space, split.counts
    for label, entry in enumerate(space.classes):
        if not space.is_class_agnostic and is_void_name(entry.name) and counts.pixels[label]:
            share = counts.pixels[label] / max(counts.total, 1)
            text = f"the class {entry.name!r} (id {entry.dataset_id}) covers {share:.1%} of the pixels"
            yield Problem("void_as_class", text, split.name)
    unused = [space.names[label] for label, count in enumerate(counts.segments) if not count]
    if unused and split.num_usable and not space.is_class_agnostic and len(unused) < len(space):
        yield Problem("unused_class", f"{len(unused)} of {len(space)}: {listed(unused)}", split.name)
    if counts.total and counts.void / counts.total > MUCH_VOID:
        yield Problem("much_void", f"{counts.void / counts.total:.1%} of the pixels", split.name)


def check_ids(split: SplitReport, strangers: Collection[int], facts: JsonFacts | None) -> Iterator[Problem]:
    """Ids that would all be known if each were one lower or higher. strangers: ids that readers found without class."""
    space, counts = split.label_space, split.counts
    known = set(space.dataset_ids)
    used = {space.dataset_ids[label] for label, count in enumerate(counts.segments) if count} | set(strangers)
    if facts is not None and facts.listed:
        known, used = facts.listed, set(facts.used)
    text = shifted_ids(known, used - set(space.void_ids))
    if text:
        yield Problem("off_by_one", text, split.name)
    elif _is_void_suspicious(split):
        first, last = space.classes[0], space.classes[-1]
        share = counts.void / counts.total
        yield Problem(
            "off_by_one",
            f"{last.name!r} (id {last.dataset_id}) is the only class that never occurs, and {share:.0%} of the pixels "
            f"are void: is void really the id {first.dataset_id - 1}, or is that the first class?",
            split.name,
        )


def shifted_ids(known: Collection[int], used: Collection[int]) -> str:
    """Why the used ids look shifted by one against the known ones, "" when they do not."""
    strange = sorted(set(used) - set(known))
    if not strange or not known:
        return ""
    for step, words in ((-1, "subtract"), (1, "add")):
        if {number + step for number in used} <= set(known):
            unused = min(known) if step < 0 else max(known)
            text = f"{listed(strange)} used but unknown, {unused} known but never used: {words} 1?"
            return f"the ids are {text}" if len(strange) > 1 else f"the id is {text}"
    return ""


def compare_splits(splits: Sequence[SplitReport]) -> Iterator[Problem]:
    """Splits whose classes fit each other only when one is shifted by one."""
    for first, second in itertools.combinations(splits, 2):
        if first.label_space != second.label_space:
            continue
        one, other = _shares(first), _shares(second)
        if min((one > 0).sum(), (other > 0).sum()) < MIN_CLASSES:
            continue
        likeness = np.array([float(one @ np.roll(other, shift)) for shift in range(len(other))])
        plain, usual = float(likeness[0]), float(np.median(likeness))
        for shift in (-1, 1):
            shifted = float(likeness[shift])
            if shifted > LIKE and shifted - usual > CLEARLY and plain - usual < HARDLY * (shifted - usual):
                way = "lowered" if shift < 0 else "raised"
                text = (
                    f"its classes fit those of {first.name!r} only when each id is {way} by 1 "
                    f"(likeness {shifted:.2f}, as they are {plain:.2f})"
                )
                yield Problem("off_by_one", text, second.name)


def is_void_name(name: str) -> bool:
    """Whether this is what data sets call pixels that belong to no class."""
    return loose_name(name.strip("_ ")) in VOID_NAMES


def _shares(split: SplitReport) -> NDArray[np.float64]:
    roots = np.sqrt(np.array(split.counts.pixels, np.float64))
    length = float(np.linalg.norm(roots))
    return roots / length if length else roots


def _is_void_suspicious(split: SplitReport) -> bool:
    """All classes occur but the last, and void fills more than most classes do."""
    counts = split.counts
    if len(counts.pixels) < MIN_CLASSES or counts.pixels[-1] or not all(counts.pixels[:-1]) or not split.num_usable:
        return False
    return counts.void > float(np.median(counts.pixels[:-1])) and counts.void > MUCH_VOID * counts.total
