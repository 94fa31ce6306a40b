"""One label space for several data sets, joined by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from omg_transformers.labels.colors import distinct_colors
from omg_transformers.labels.label_space import LabelClass, LabelSpace
from omg_transformers.labels.names import split_names


@dataclass(frozen=True, slots=True)
class JointLabelSpace:
    """The joint space, and where every class of the given spaces went.

    index_maps: per given space, per class, its label in the joint space; -1 in a class-agnostic space.
    merged: (space, class, joint class) by name, for every class that joined an earlier one.
    shared: (text, thing class, stuff class) by name: the same text stands for both, so text cannot tell them apart.
    """

    label_space: LabelSpace
    index_maps: tuple[tuple[int, ...], ...]
    merged: tuple[tuple[str, str, str], ...]
    shared: tuple[tuple[str, str, str], ...]

    def report(self) -> str:
        """What was merged, for a person to check."""
        things = sum(self.label_space.is_thing)
        lines = [f"{self.label_space.name}: {things} things, {len(self.label_space) - things} stuff classes"]
        lines += [f"  {space}: {name!r} joined {joint!r}" for space, name, joint in self.merged]
        lines += [f"  {text!r} is a thing ({thing!r}) and stuff ({stuff!r})" for text, thing, stuff in self.shared]
        return "\n".join(lines)


def joint_label_space(spaces: Sequence[LabelSpace], *, name: str = "joint") -> JointLabelSpace:
    """Join spaces by name: a class joins the first earlier class of its kind (thing, stuff) that shares a text with it.

    The earlier class keeps its own texts. Things stand before stuff, otherwise in order of appearance; dataset_id is
    the new label. Class-agnostic spaces add no class. No space, or none with classes: ValueError.
    """
    if not any(not space.is_class_agnostic for space in spaces):
        raise ValueError("joint_label_space got no space with classes: give at least one that is not class-agnostic")
    joined: list[LabelClass] = []
    owner: dict[tuple[bool, str], int] = {}
    merged: list[tuple[str, str, str]] = []
    places: list[list[int]] = []
    for space in spaces:
        places.append([])
        for label in space.classes:
            if space.is_class_agnostic:
                places[-1].append(-1)
                continue
            keys = [(label.is_thing, text) for text in _texts(label)]
            place = min((owner[key] for key in keys if key in owner), default=len(joined))
            if place == len(joined):
                joined.append(label)
                owner.update({key: place for key in keys if key not in owner})
            else:
                merged.append((space.name, label.name, joined[place].name))
            places[-1].append(place)
    order = sorted(range(len(joined)), key=lambda place: not joined[place].is_thing)
    label_of_place = {place: label for label, place in enumerate(order)} | {-1: -1}
    colors = distinct_colors(len(joined))
    classes = tuple(
        replace(joined[place], dataset_id=label, color=colors[label], dataset_name="")
        for label, place in enumerate(order)
    )
    return JointLabelSpace(
        label_space=LabelSpace(name, classes),
        index_maps=tuple(tuple(label_of_place[place] for place in row) for row in places),
        merged=tuple(merged),
        shared=_shared_texts(classes),
    )


def _texts(label: LabelClass) -> tuple[str, ...]:
    return tuple(part for prompt in label.prompts for part in split_names(prompt))


def _shared_texts(classes: Sequence[LabelClass]) -> tuple[tuple[str, str, str], ...]:
    things = {text: label.name for label in classes if label.is_thing for text in _texts(label)}
    return tuple(
        (text, things[text], label.name)
        for label in classes
        if not label.is_thing
        for text in _texts(label)
        if text in things
    )
