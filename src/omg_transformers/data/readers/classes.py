"""Classes of a data set as its own files name them, and where each goes in a label space that the caller wants."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from omg_transformers.data.label_mapping import class_mapping, classes_of_categories
from omg_transformers.labels import LabelClass, LabelSpace
from omg_transformers.labels.colors import distinct_colors
from omg_transformers.labels.names import clean_name, loose_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

# What tools call the class of pixels that belong to none ("__ignore__" of labelme is void and no class).
BACKGROUND_NAMES = ("background", "_background_", "__background__")
NAME_FILES = (
    "classes.txt", "class_names.txt", "labels.txt", "names.txt", "classes.json", "id2label.json", "names.json"
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class DatasetClasses:
    """The label space of a source, and the class of each id in its files (-1: none, the space is class-agnostic)."""

    label_space: LabelSpace
    class_of: Mapping[int, int]


def classes_of_json(
    categories: Sequence[dict[str, Any]],
    label_space: LabelSpace | None,
    *,
    name: str,
    where: Path,
    used: Collection[int],
) -> DatasetClasses:
    """The `categories` of a COCO file; without a label space they make one.

    Equal names are one class. A background or a project of Roboflow that no annotation uses is left out. used: ids
    that occur; with a label space only these must have a class. Raises ValueError for ids listed twice and entries
    without id or name.
    """
    _check_categories(categories, where)
    kept = [entry for entry in categories if entry["id"] in used or not _is_no_class(entry, categories)]
    if label_space is not None:
        return DatasetClasses(label_space, classes_of_categories(kept, label_space, where=str(where), needed=used))
    if not kept:
        raise ValueError(f"{where} lists no categories: without them nobody knows what is annotated")
    drafts = [
        LabelClass(
            name=clean_text(str(entry["name"])),
            synonyms=tuple(str(text) for text in entry.get("synonyms") or ()),
            is_thing=bool(entry.get("isthing", True)),
            dataset_id=int(entry["id"]),
            dataset_name=str(entry["name"]),
        )
        for entry in kept
    ]
    return own_classes(drafts, name=name)


def own_classes(drafts: Sequence[LabelClass], *, name: str, void_ids: tuple[int, ...] = ()) -> DatasetClasses:
    """A label space of these classes: equal names are joined, a synonym stays with the first class that has it."""
    owner: dict[str, int] = {}
    class_of: dict[int, int] = {}
    firsts: list[LabelClass] = []
    for draft in drafts:
        place = owner.setdefault(clean_name(draft.name), len(firsts))
        if place == len(firsts):
            firsts.append(draft)
        class_of[draft.dataset_id] = place
    colors = distinct_colors(len(firsts))
    classes = []
    for place, first in enumerate(firsts):
        texts = {clean_name(text): clean_text(text) for text in first.synonyms}
        synonyms = tuple(text for key, text in texts.items() if owner.setdefault(key, place) == place)
        synonyms = tuple(text for text in synonyms if clean_name(text) != clean_name(first.name))
        own_name = "" if first.dataset_name == first.name else first.dataset_name
        classes.append(replace(first, synonyms=synonyms, color=colors[place], dataset_name=own_name))
    return DatasetClasses(LabelSpace(name, tuple(classes), void_ids=void_ids), class_of)


def named_classes(names: Mapping[int, str], *, name: str) -> DatasetClasses:
    """Classes from {id: "name" or "name|synonym"}; thing or stuff as the built-in spaces have it, unknown: thing.

    A name with commas is a list of synonyms ("car, auto"), as ADE20K writes it, unless another begins with the same
    word ("cup, red" and "cup, blue").
    """
    from omg_transformers.labels.builtin import known_thing_flag

    beginnings = Counter(clean_name(text.split(",")[0]) for text in set(names.values()))
    drafts = []
    for number, text in names.items():
        is_list = beginnings[clean_name(text.split(",")[0])] == 1
        parts = text.replace(",", "|").split("|") if is_list else text.split("|")
        first, *others = [part.strip() for part in parts if part.strip()] or [text]
        flag = known_thing_flag((first, *others))
        is_thing = not is_background(first) and flag is not False
        label = "background" if is_background(first) else clean_text(first)
        drafts.append(LabelClass(label, tuple(others), is_thing, dataset_id=number, dataset_name=text))
    return own_classes(drafts, name=name)


def in_label_space(own: DatasetClasses, label_space: LabelSpace | None, *, where: Path) -> DatasetClasses:
    """The same ids with classes of `label_space`, found by name and synonym; None: as they are.

    Raises ValueError that lists the classes that are missing there.
    """
    if label_space is None:
        return own
    if label_space.is_class_agnostic:
        return DatasetClasses(label_space, dict.fromkeys(own.class_of, -1))
    mapping = class_mapping(own.label_space, label_space)
    missing = [name for name, target in zip(own.label_space.names, mapping, strict=True) if target is None]
    if missing:
        raise ValueError(
            f"{where}: {len(missing)} classes have no class in the label space {label_space.name!r}: "
            f"{', '.join(missing[:8])}. Add them as names or synonyms, or read without label_space and wrap the source "
            "in MappedSource(..., unmapped='void')"
        )
    found = {number: target for number, place in own.class_of.items() if (target := mapping[place]) is not None}
    return DatasetClasses(label_space, found)


def classes_of_space(own: LabelSpace, label_space: LabelSpace | None, *, where: Path) -> DatasetClasses:
    """A data set whose classes are known beforehand, by the ids of its files."""
    known = DatasetClasses(own, {number: place for place, number in enumerate(own.dataset_ids)})
    return in_label_space(known, label_space, where=where)


def read_names(root: Path) -> dict[int, str] | None:
    """{id: name} of the first file of `NAME_FILES` under `root`, None without one.

    Text: one name per line, counted from 0; from -1 when the first is "__ignore__". JSON: a list, or {id: name}.
    """
    for file in NAME_FILES:
        path = root / file
        if path.is_file():
            return _names_of_json(path) if path.suffix == ".json" else _names_of_lines(path)
    return None


def names_by_id(names: Iterable[str] | Mapping[int, str]) -> dict[int, str]:
    """{id: name} of an option `names`: a list counts from 0. Raises TypeError for a single text."""
    if isinstance(names, str):
        raise TypeError(f"names is the text {names!r}: give a list of names, or {{id: name}}")
    items = names.items() if hasattr(names, "items") else enumerate(names)
    return {int(number): str(text) for number, text in items}


def is_background(name: str) -> bool:
    """Whether tools use this name for pixels that belong to no class."""
    return name.strip().lower() in BACKGROUND_NAMES or loose_name(name) == "background"


def clean_text(name: str) -> str:
    """A data set's spelling as a prompt: underscores and runs of space become one space, case stays."""
    return " ".join(name.replace("_", " ").split()) or name


def _is_no_class(entry: dict[str, Any], categories: Sequence[dict[str, Any]]) -> bool:
    """Whether it is a background, or the row for the whole project that Roboflow puts above all others."""
    is_project = entry.get("supercategory") == "none" and any(
        other.get("supercategory") == entry["name"] for other in categories
    )
    return is_project or is_background(str(entry["name"]))


def _check_categories(categories: Sequence[dict[str, Any]], where: Path) -> None:
    seen: set[float] = set()
    for entry in categories:
        if not isinstance(entry, dict) or "id" not in entry or not str(entry.get("name") or "").strip():
            raise ValueError(f"{where}: the category {entry!r} lacks an id or a name: expected both")
        if not isinstance(entry["id"], (int, float)) or entry["id"] % 1:
            raise ValueError(f"{where} has the category id {entry['id']!r}: expected a whole number")
        if entry["id"] in seen:
            raise ValueError(f"{where} lists the category id {entry['id']} twice: an id stands for one category")
        seen.add(entry["id"])


def _names_of_lines(path: Path) -> dict[int, str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error}): save it in that encoding") from error
    if not lines:
        raise ValueError(f"{path} is empty: expected one class name per line")
    first = -1 if lines[0] == "__ignore__" else 0
    return {number: text for number, text in enumerate(lines, first) if number >= 0}


def _names_of_json(path: Path) -> dict[int, str]:
    try:
        content = json.loads(path.read_bytes())
        return names_by_id({int(key): text for key, text in content.items()} if isinstance(content, dict) else content)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} holds no names ({error}): expected a list, or {{id: name}}") from error
