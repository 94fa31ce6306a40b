"""What the values of masks mean that come without a standard: names, void, background, or a single object."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from omg_transformers.data.readers.class_maps import ValueTable
from omg_transformers.data.readers.classes import in_label_space, is_background, named_classes, names_by_id, read_names
from omg_transformers.data.sources import SampleError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from omg_transformers.data.readers.class_maps import Values
    from omg_transformers.labels import LabelSpace

VOID = 255
# Names by which tools mark pixels that nobody labelled.
_VOID_NAMES = frozenset({"void", "ignore", "__ignore__", "unlabelled", "unlabeled"})
_BINARY = ({0, 1}, {0, 255})
# A few masks tell whether they are binary.
_LOOKED_AT = 16


@dataclass(frozen=True, slots=True)
class MaskClasses:
    """The classes of masks. is_scene: every pixel has a class or is void."""

    label_space: LabelSpace
    table: ValueTable
    is_scene: bool


def mask_classes(
    names: Mapping[int, str],
    label_space: LabelSpace | None,
    *,
    name: str,
    where: Path,
    void_ids: Iterable[int] | None = None,
    background: bool | None = None,
) -> MaskClasses:
    """names: {value: name}. 0 is background when it has no other name; values named "void" or the like are void.

    void_ids: values that are void whatever their name; None: 255, unless it has a name.

    background: True makes it a stuff class, so that every pixel has a class; False leaves its pixels in no segment;
    None: True if the label space knows it or there is none. Raises ValueError when no class is left.
    """
    void = {VOID} - set(names) if void_ids is None else {int(value) for value in void_ids}
    void |= {value for value, text in names.items() if text.strip().lower() in _VOID_NAMES}
    meanings = {value: text for value, text in names.items() if value not in void}
    if 0 not in void:
        meanings = {0: meanings.get(0, "background"), **meanings}
    empty = {value for value, text in meanings.items() if is_background(text)}
    if background is None:
        background = label_space is None or label_space.find("background") is not None
    if not background:
        meanings = {value: text for value, text in meanings.items() if value not in empty}
    if not set(meanings) - empty:
        raise ValueError(f"names {dict(names)} of {where} hold no class beside background and void: name at least one")
    classes = in_label_space(named_classes(meanings, name=name), label_space, where=where)
    table = ValueTable(
        classes.class_of,
        classes.label_space.is_thing,
        void=frozenset(void),
        unlabelled=frozenset() if background else frozenset(empty),
    )
    return MaskClasses(classes.label_space, table, is_scene=bool(background) or not empty)


def values_seen(masks: Iterable[Callable[[], Values]]) -> set[int]:
    """Values of the first few masks, each read by a call. Bad ones are passed over until they are asked for."""
    values: set[int] = set()
    for read in itertools.islice(masks, _LOOKED_AT):
        with contextlib.suppress(SampleError):
            values.update(int(value) for value in np.unique(read()))
    return values


def names_of_masks(
    names: Iterable[str] | Mapping[int, str] | None, root: Path, seen_values: set[int]
) -> dict[int, str]:
    """{value: name}: the option `names`, else the names file under `root`, else one class "object" of binary masks.

    seen_values: of some masks. Raises ValueError when nobody says what the values mean.
    """
    known = read_names(root) if names is None else names_by_id(names)
    is_binary = any(seen_values <= values for values in _BINARY)
    if known is None:
        if not is_binary:
            raise ValueError(
                f"{root} does not say what the values {sorted(seen_values)[:12]} of its masks mean: put a classes.txt "
                "there, one name per line counted from 0, or pass names=[...]"
            )
        return {1: "object", VOID: "object"}
    single = [value for value, text in known.items() if not is_background(text)]
    if VOID in seen_values and is_binary and VOID not in known and len(single) == 1:
        return {**known, VOID: known[single[0]]}
    return known
