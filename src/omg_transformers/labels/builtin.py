"""The label spaces of public data sets, kept as JSON files in `data/` beside this module."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from importlib import resources

from omg_transformers.labels.label_space import LabelSpace
from omg_transformers.labels.names import loose_name, nearest_hint

# Who decides first whether a name is a thing: COCO's fine classes, then its coarse ones, then the larger sets.
_NAMES = (
    "coco_panoptic",
    "coco_supercategory",
    "ade20k",
    "cityscapes",
    "vipseg",
    "youtube_vis_2021",
    "youtube_vis_2019",
    "coco_instance",
    "cityscapes_label_ids",
    "davis",
)


def builtin_label_space_names() -> tuple[str, ...]:
    """What `builtin_label_space` accepts, sorted."""
    return tuple(sorted(_NAMES))


@cache
def builtin_label_space(name: str) -> LabelSpace:
    """The label space of a public data set. Classes stand in the order of the data set's ids.

    Synonyms are those of OMG-Seg. `cityscapes` has trainIds, `cityscapes_label_ids` the ids of labelIds.png and
    instanceIds.png; `vipseg` counts from 0 as its category file does (its PNGs hold id + 1, void is -1 then);
    `coco_supercategory` is ours: COCO's 27 groups, the fine names as synonyms, ids 1..27. Unknown: ValueError.
    """
    if name not in _NAMES:
        raise ValueError(
            f"no built-in label space {name!r}{nearest_hint(name, _NAMES)}. "
            f"There are: {', '.join(builtin_label_space_names())}"
        )
    text = resources.files("omg_transformers.labels").joinpath("data", f"{name}.json").read_text(encoding="utf-8")
    return LabelSpace.from_dict(json.loads(text))


@cache
def _thing_flag_of_text() -> dict[str, bool]:
    flags: dict[str, bool] = {}
    for name in _NAMES:
        space = builtin_label_space(name)
        for label in space.classes:
            for text in (*label.prompts, label.dataset_name):
                if text and not space.is_class_agnostic:
                    flags.setdefault(loose_name(text), label.is_thing)
    return flags


def known_thing_flag(texts: Iterable[str]) -> bool | None:
    """Whether the first text that a built-in space knows is a thing there; None when none is known."""
    flags = _thing_flag_of_text()
    return next((flags[loose_name(text)] for text in texts if loose_name(text) in flags), None)
