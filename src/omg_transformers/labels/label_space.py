"""Which classes there are: names, synonyms, thing or stuff, colours, the data set's own ids, void."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from omg_transformers.labels.colors import distinct_colors
from omg_transformers.labels.names import clean_name, loose_name, nearest_hint

Color = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class LabelClass:
    """One class. is_thing: countable objects; otherwise stuff. color: red, green, blue in 0..255.

    dataset_id: the id that the data set's files use. dataset_name: the data set's own spelling where it differs
    from `name` ("tree-merged" for "tree"); it is found by `LabelSpace.index`, but it is no prompt.
    """

    name: str
    synonyms: tuple[str, ...] = ()
    is_thing: bool = True
    color: Color = (128, 128, 128)
    dataset_id: int = 0
    dataset_name: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not clean_name(self.name):
            raise ValueError(f"a class has the name {self.name!r}: give every class a non-empty text")
        object.__setattr__(self, "synonyms", _checked_synonyms(self.name, self.synonyms))
        object.__setattr__(self, "color", _checked_color(self.name, self.color))
        if not isinstance(self.is_thing, bool):
            raise TypeError(f"class {self.name!r} has is_thing={self.is_thing!r}: give True (thing) or False (stuff)")
        if not isinstance(self.dataset_id, int) or isinstance(self.dataset_id, bool):
            raise TypeError(
                f"class {self.name!r} has dataset_id={self.dataset_id!r}: give the whole number of its files"
            )

    @property
    def prompts(self) -> tuple[str, ...]:
        """The name and its synonyms: every text that means this class."""
        return (self.name, *self.synonyms)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form; `from_dict` reads it."""
        content: dict[str, Any] = {
            "name": self.name,
            "synonyms": list(self.synonyms),
            "is_thing": self.is_thing,
            "color": list(self.color),
            "dataset_id": self.dataset_id,
        }
        return {**content, "dataset_name": self.dataset_name} if self.dataset_name else content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The class that `to_dict` wrote. Missing or unknown keys: ValueError."""
        _check_keys(content, f"class {content.get('name', '?')!r}", required={"name"}, known=set(cls.__slots__))
        return cls(**content)


@dataclass(frozen=True)
class LabelSpace:
    """An ordered list of classes; a class's place in it is its label in the model's answers.

    void_ids: ids in the data set's files that mean "nobody knows". is_class_agnostic: masks count, classes do not
    (labels of such samples are -1). A thing and a stuff class may share a name; otherwise every text names one class.
    """

    name: str
    classes: tuple[LabelClass, ...]
    void_ids: tuple[int, ...] = ()
    is_class_agnostic: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise ValueError(f"label space name is {self.name!r}: give it a non-empty text")
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "void_ids", tuple(self.void_ids))
        if not self.classes:
            raise ValueError(f"label space {self.name!r} has no classes: give at least one")
        _check_texts(self.name, self.classes)
        _check_dataset_ids(self.name, self.classes, self.void_ids)

    def __len__(self) -> int:
        return len(self.classes)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """One name per class."""
        return tuple(label.name for label in self.classes)

    @cached_property
    def is_thing(self) -> tuple[bool, ...]:
        """One flag per class."""
        return tuple(label.is_thing for label in self.classes)

    @cached_property
    def colors(self) -> tuple[Color, ...]:
        """One (red, green, blue) per class, 0..255."""
        return tuple(label.color for label in self.classes)

    @cached_property
    def prompts(self) -> tuple[tuple[str, ...], ...]:
        """Per class its name and synonyms: what a vocabulary turns into prototypes."""
        return tuple(label.prompts for label in self.classes)

    @cached_property
    def dataset_ids(self) -> tuple[int, ...]:
        """Per class the id of the data set's files."""
        return tuple(label.dataset_id for label in self.classes)

    @cached_property
    def _index_of_text(self) -> dict[str, int]:
        exact: dict[str, int] = {}
        for kind in ("name", "dataset_name", "synonyms"):
            for index, label in enumerate(self.classes):
                texts = getattr(label, kind)
                for text in (texts,) if isinstance(texts, str) else texts:
                    exact.setdefault(clean_name(text), index)
        return exact

    @cached_property
    def _index_of_loose_text(self) -> dict[str, int]:
        loose: dict[str, int] = {}
        for text, index in self._index_of_text.items():
            loose.setdefault(loose_name(text), index)
        return loose

    @cached_property
    def _index_of_dataset_id(self) -> dict[int, int]:
        return {label.dataset_id: index for index, label in enumerate(self.classes)}

    def find(self, text: str) -> int | None:
        """Like `index`, but None for an unknown text."""
        found = self._index_of_text.get(clean_name(text))
        return self._index_of_loose_text.get(loose_name(text)) if found is None else found

    def index(self, text: str) -> int:
        """The label of a name, a data set's own name or a synonym, in this order of precedence.

        Case, hyphens, underscores and COCO's endings ("-merged", "-other", "-stuff") are forgiven.
        Unknown: ValueError with the nearest names.
        """
        found = self.find(text)
        if found is None:
            hint = nearest_hint(text, (prompt for prompts in self.prompts for prompt in prompts))
            raise ValueError(f"label space {self.name!r} has no class {text!r}{hint}")
        return found

    def index_of_dataset_id(self, dataset_id: int) -> int | None:
        """The label of an id in the data set's files; None when the id means void. Unknown: ValueError."""
        if dataset_id in self.void_ids:
            return None
        if dataset_id not in self._index_of_dataset_id:
            raise ValueError(
                f"label space {self.name!r} has no class with the data set's id {dataset_id}: its ids run from "
                f"{min(self.dataset_ids)} to {max(self.dataset_ids)}, void is {self.void_ids or 'none'}. "
                "Does the file belong to another data set?"
            )
        return self._index_of_dataset_id[dataset_id]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form, the one of the built-in files; `from_dict` reads it."""
        return {
            "name": self.name,
            "void_ids": list(self.void_ids),
            "is_class_agnostic": self.is_class_agnostic,
            "classes": [label.to_dict() for label in self.classes],
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The space that `to_dict` wrote. Missing or unknown keys: ValueError."""
        known = {"name", "classes", "void_ids", "is_class_agnostic"}
        _check_keys(content, f"label space {content.get('name', '?')!r}", required={"name", "classes"}, known=known)
        classes = tuple(LabelClass.from_dict(label) for label in content["classes"])
        return cls(**{**content, "classes": classes})

    @classmethod
    def from_names(cls, names: Sequence[str], *, things: Iterable[str] | None = None, name: str = "custom") -> Self:
        """A space from texts of a user: ["person", "sofa|couch", "grass"], `|` before each synonym.

        things: the names that are things, all others are stuff; None: as the built-in spaces have it, unknown: thing.
        Colours are distinct and depend on the place only; dataset_id counts from 1.
        """
        groups = _parse_names(names)
        thing_flags = _thing_flags(groups, things)
        colors = distinct_colors(len(groups))
        return cls(
            name=name,
            classes=tuple(
                LabelClass(group[0], group[1:], is_thing, color, index + 1)
                for index, (group, is_thing, color) in enumerate(zip(groups, thing_flags, colors, strict=True))
            ),
        )


def _checked_synonyms(name: str, synonyms: Iterable[str]) -> tuple[str, ...]:
    if isinstance(synonyms, str):
        raise TypeError(f"class {name!r} has synonyms={synonyms!r}: give a tuple of texts, not one text")
    checked = tuple(synonyms)
    for synonym in checked:
        if not isinstance(synonym, str) or not clean_name(synonym):
            raise ValueError(f"class {name!r} has the synonym {synonym!r}: give non-empty texts")
    return checked


def _checked_color(name: str, color: Iterable[int]) -> Color:
    values = tuple(color)
    if len(values) != 3 or not all(isinstance(value, int) and 0 <= value <= 255 for value in values):
        raise ValueError(f"class {name!r} has color={values}: give (red, green, blue), whole numbers in 0..255")
    return values


def _check_keys(content: Mapping[str, Any], owner: str, *, required: set[str], known: set[str]) -> None:
    missing, unknown = sorted(required - set(content)), sorted(set(content) - known)
    if missing or unknown:
        raise ValueError(
            f"{owner} has missing keys {missing} and unknown keys {unknown}: expected {sorted(known)}, "
            "as `to_dict` writes them"
        )


def _check_texts(space: str, classes: Sequence[LabelClass]) -> None:
    """Every text names one thing class or one stuff class at most (data sets do share words between the two)."""
    owners: dict[tuple[bool, str], int] = {}
    for index, label in enumerate(classes):
        for text in label.prompts:
            owner = owners.setdefault((label.is_thing, clean_name(text)), index)
            if owner != index:
                raise ValueError(
                    f"label space {space!r} uses {text!r} for class {owner} ({classes[owner].name!r}) and for "
                    f"class {index} ({label.name!r}): remove it from one of them, or join the two classes"
                )
        if len({clean_name(text) for text in label.prompts}) < len(label.prompts):
            raise ValueError(f"label space {space!r}: class {label.name!r} repeats a text in {label.prompts}: drop it")


def _check_dataset_ids(space: str, classes: Sequence[LabelClass], void_ids: Sequence[int]) -> None:
    owners: dict[int, str] = {}
    for label in classes:
        if label.dataset_id in void_ids:
            raise ValueError(
                f"label space {space!r}: dataset_id {label.dataset_id} of class {label.name!r} is also in void_ids "
                f"{tuple(void_ids)}: an id is either a class or void"
            )
        if label.dataset_id in owners:
            raise ValueError(
                f"label space {space!r}: classes {owners[label.dataset_id]!r} and {label.name!r} both have dataset_id "
                f"{label.dataset_id}: give each its own"
            )
        owners[label.dataset_id] = label.name


def _parse_names(names: Sequence[str]) -> list[tuple[str, ...]]:
    if isinstance(names, str):
        raise TypeError(f"names is the text {names!r}: give a list of texts, one per class")
    groups: list[tuple[str, ...]] = []
    owner: dict[str, str] = {}
    for position, entry in enumerate(names):
        if not isinstance(entry, str):
            raise TypeError(f"names[{position}] is {entry!r}: give a text")
        group = tuple(part.strip() for part in entry.split("|"))
        if not all(clean_name(text) for text in group):
            raise ValueError(
                f"names[{position}] is {entry!r}: a name or synonym is empty; write 'name' or 'name|synonym'"
            )
        if "," in entry:
            raise ValueError(
                f"names[{position}] is {entry!r}, with a comma: give one entry per class, "
                "and write synonyms as 'sofa|couch'"
            )
        for text in group:
            if clean_name(text) in owner:
                raise ValueError(
                    f"names[{position}] {entry!r} repeats {text!r}, already used by {owner[clean_name(text)]!r} "
                    "(case and underscores do not count): every name and synonym may stand once"
                )
            owner[clean_name(text)] = entry
        groups.append(group)
    if not groups:
        raise ValueError("names is empty: give at least one class name")
    return groups


def _thing_flags(groups: Sequence[tuple[str, ...]], things: Iterable[str] | None) -> list[bool]:
    if things is None:
        from omg_transformers.labels.builtin import known_thing_flag

        return [known_thing_flag(group) is not False for group in groups]
    if isinstance(things, str):
        raise TypeError(f"things is the text {things!r}: give a list of names")
    wanted = {clean_name(thing): thing for thing in things}
    known = {clean_name(text) for group in groups for text in group}
    for key, thing in wanted.items():
        if key not in known:
            raise ValueError(f"things names {thing!r}, which is not among the names{nearest_hint(thing, known)}")
    return [any(clean_name(text) in wanted for text in group) for group in groups]
