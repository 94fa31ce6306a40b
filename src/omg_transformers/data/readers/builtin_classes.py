"""Categories in a file that are the classes of a built-in label space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omg_transformers.data.readers.classes import DatasetClasses, classes_of_json, classes_of_space
from omg_transformers.labels import builtin_label_space

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from omg_transformers.labels import LabelSpace


def known_classes(
    categories: Sequence[dict[str, Any]],
    label_space: LabelSpace | None,
    *,
    builtins: Sequence[str],
    name: str,
    where: Path,
    used: Collection[int],
) -> DatasetClasses:
    """As `classes_of_json`; without a label space one of `builtins` when it has just these ids, names and kinds."""
    if label_space is None:
        for builtin in map(builtin_label_space, builtins):
            if _is_same(categories, builtin):
                return classes_of_space(builtin, None, where=where)
    return classes_of_json(categories, label_space, name=name, where=where, used=used)


def _is_same(categories: Sequence[dict[str, Any]], space: LabelSpace) -> bool:
    index_of = {number: index for index, number in enumerate(space.dataset_ids)}
    if {row.get("id") for row in categories} != set(index_of):
        return False
    return all(
        space.find(str(row.get("name"))) == index_of[row["id"]]
        and bool(row.get("isthing", True)) == space.is_thing[index_of[row["id"]]]
        for row in categories
    )
