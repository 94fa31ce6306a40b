"""The class names of another model, matched to those of the data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from omg_transformers.labels.names import nearest_names, split_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from omg_transformers.labels import LabelSpace

# Names shown in an error; notes list them all.
SHOWN_NAMES = 5


@dataclass(frozen=True)
class ClassMatch:
    """Where each of a model's classes stands in a label space.

    places: per name of the model its label, or None: the data has no such class, and who is sure of it answers
    "nothing here". A name is matched as a whole (case, hyphens and COCO's "-merged", "-other", "-stuff" are forgiven,
    synonyms count), else by the first of its parts that is known ("door, double door").
    """

    names: tuple[str, ...]
    label_space: LabelSpace
    places: tuple[int | None, ...]

    @classmethod
    def of(cls, names: Sequence[str], label_space: LabelSpace) -> ClassMatch:
        """Match all names. ValueError when none is known: it lists the nearest."""
        places = tuple(_place(name, label_space) for name in names)
        if all(place is None for place in places):
            raise ValueError(_no_common_name(names, label_space))
        return cls(tuple(names), label_space, places)

    def class_logits(self, logits: Tensor) -> Tensor:
        """The model's logits (..., C + 1) as logits over the data's classes, (..., K + 1) float32; void last in both.

        Probabilities of names that mean one class add; those of names that the data lacks go to void, so that no
        class gains by them. Classes that the model lacks get -inf.
        """
        if logits.shape[-1] != len(self.names) + 1:
            raise ValueError(
                f"the model answers {logits.shape[-1] - 1} classes and void, but its config.json names "
                f"{len(self.names)} (id2label): correct the names"
            )
        void = len(self.label_space)
        columns = [void if place is None else place for place in self.places]
        probs = logits.float().softmax(-1)
        sums = probs.new_zeros((*probs.shape[:-1], void + 1))
        return sums.index_add_(-1, torch.tensor([*columns, void], device=probs.device), probs).log()

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What does not fit one to one, every name listed; empty when all does."""
        space = self.label_space
        meaning: dict[int, list[str]] = {}
        for name, place in zip(self.names, self.places, strict=True):
            if place is not None:
                meaning.setdefault(place, []).append(name)
        lacking = [name for label, name in enumerate(space.names) if label not in meaning]
        foreign = [name for name, place in zip(self.names, self.places, strict=True) if place is None]
        joined = [f"{space.names[label]!r} = {' + '.join(names)}" for label, names in meaning.items() if len(names) > 1]
        notes = []
        if lacking:
            count = f"{len(lacking)} of the {len(space)} classes of {space.name!r}"
            notes.append(f"{count} are unknown to the model, it never answers them: {', '.join(lacking)}")
        if foreign:
            count = f"{len(foreign)} of the model's {len(self.names)} names are no class of {space.name!r}"
            notes.append(f"{count}, they count as nothing: {', '.join(foreign)}")
        if joined:
            notes.append(f"several names of the model count as one class of {space.name!r}: {'; '.join(joined)}")
        return tuple(notes)


def _place(name: str, label_space: LabelSpace) -> int | None:
    places = (label_space.find(text) for text in (name, *split_names(name)))
    return next((place for place in places if place is not None), None)


def _no_common_name(names: Sequence[str], label_space: LabelSpace) -> str:
    known = [text for prompts in label_space.prompts for text in prompts]
    near = [
        f"{name!r} is near {', '.join(map(repr, found))}" for name in names if (found := nearest_names(name, known))
    ]
    hint = "; ".join(near[:SHOWN_NAMES]) or f"the data has {', '.join(map(repr, label_space.names[:SHOWN_NAMES]))}"
    return (
        f"none of the model's {len(names)} class names ({', '.join(map(repr, names[:SHOWN_NAMES]))}"
        f"{', ...' if len(names) > SHOWN_NAMES else ''}) is a class of {label_space.name!r}: {hint}. "
        "Write the data's names into id2label of the model's config.json, or choose data that it was trained for."
    )
