"""One label space for several data sets, joined by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from omg_transformers.labels.colors import distinct_colors
from omg_transformers.labels.label_space import LabelClass, LabelSpace
from omg_transformers.labels.names import clean_name, nearest_hint, split_names


@dataclass(frozen=True, slots=True)
class JointLabelSpace:
    """The joint space, and where every class of the given spaces went.

    index_maps: per given space, per class, its label in the joint space; -1 in a class-agnostic space.
    merged: (space, class, joint class) by name, for every class that joined an earlier one.
    shared: (text, thing class, stuff class) by name: the same text stands for both, so text cannot tell them apart.
    kept_apart: (space, class, joint class) by name, for every class that would have joined another but was not to.
    """

    label_space: LabelSpace
    index_maps: tuple[tuple[int, ...], ...]
    merged: tuple[tuple[str, str, str], ...]
    shared: tuple[tuple[str, str, str], ...]
    kept_apart: tuple[tuple[str, str, str], ...] = ()

    def part(self, number: int, *, name: str = "") -> tuple[LabelSpace, tuple[int, ...]]:
        """The joint classes that given space `number` annotates, and per class of that space its place among them.

        A model that is asked only for these is never told that what the others annotate is void.
        """
        places = self.index_maps[number]
        kept = sorted({place for place in places if place >= 0})
        if not kept:
            return LabelSpace(name or self.label_space.name, self.label_space.classes, is_class_agnostic=True), places
        classes = tuple(self.label_space.classes[place] for place in kept)
        return LabelSpace(name or self.label_space.name, classes), tuple(kept.index(place) for place in places)

    def report(self) -> str:
        """What was merged, for a person to check."""
        things = sum(self.label_space.is_thing)
        lines = [f"{self.label_space.name}: {things} things, {len(self.label_space) - things} stuff classes"]
        lines += [f"  {space}: {name!r} joined {joint!r}" for space, name, joint in self.merged]
        lines += [f"  {space}: {name!r} stays apart as {joint!r}" for space, name, joint in self.kept_apart]
        lines += [f"  {text!r} is a thing ({thing!r}) and stuff ({stuff!r})" for text, thing, stuff in self.shared]
        return "\n".join(lines)


def joint_label_space(
    spaces: Sequence[LabelSpace],
    *,
    name: str = "joint",
    same: Sequence[Sequence[str]] = (),
    apart: Sequence[str] = (),
) -> JointLabelSpace:
    """Join spaces by name: a class joins the first earlier class of its kind (thing, stuff) that shares a text with it.

    The earlier class keeps its own texts. Things stand before stuff, otherwise in order of appearance; dataset_id is
    the new label. Class-agnostic spaces add no class. same: groups of names that mean one class, although no text is
    shared. apart: "space/class" of classes that join no other; their name becomes "class (space)".
    No space, none with classes, or a name in `same` or `apart` that no class has: ValueError.
    """
    if not any(not space.is_class_agnostic for space in spaces):
        raise ValueError("joint_label_space got no space with classes: give at least one that is not class-agnostic")
    canonical, loners = _canonical_texts(spaces, same), _loners(spaces, apart)
    joined: list[LabelClass] = []
    owner: dict[tuple[bool, str], int] = {}
    merged: list[tuple[str, str, str]] = []
    kept_apart: list[tuple[str, str, str]] = []
    places: list[list[int]] = []
    for space in spaces:
        places.append([])
        for label in space.classes:
            if space.is_class_agnostic:
                places[-1].append(-1)
                continue
            if (space.name, label.name) in loners:
                places[-1].append(len(joined))
                joined.append(replace(label, name=f"{label.name} ({space.name})", synonyms=()))
                kept_apart.append((space.name, label.name, joined[-1].name))
                continue
            keys = [(label.is_thing, canonical.get(text, text)) for text in _texts(label)]
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
        kept_apart=tuple(kept_apart),
    )


def _canonical_texts(spaces: Sequence[LabelSpace], same: Sequence[Sequence[str]]) -> dict[str, str]:
    """Per text of a group the group's first text."""
    known = {text for space in spaces for label in space.classes for text in _texts(label)}
    canonical: dict[str, str] = {}
    for group in same:
        texts = [clean_name(text) for text in group]
        if len(texts) < 2:
            raise ValueError(f"same holds {list(group)}: expected two or more names that mean one class")
        for text in texts:
            if text not in known:
                raise ValueError(f"same names {text!r}, which no class is called{nearest_hint(text, known)}")
            canonical[text] = canonical.get(texts[0], texts[0])
    return canonical


def _loners(spaces: Sequence[LabelSpace], apart: Sequence[str]) -> set[tuple[str, str]]:
    known = {f"{space.name}/{label.name}": (space.name, label.name) for space in spaces for label in space.classes}
    for entry in apart:
        if entry not in known:
            raise ValueError(f"apart names {entry!r}: expected 'space/class'{nearest_hint(entry, known)}")
    return {known[entry] for entry in apart}


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
