"""What a trained model and a new data set have in common: before fine-tuning, for a person to check."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omg_transformers.plugins import load_head
from omg_transformers.plugins.contract import MakesQueryInputs
from omg_transformers.training.start import unknown_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from omg_transformers.data import SampleSource
    from omg_transformers.labels import LabelSpace, Vocabulary


@dataclass(frozen=True, slots=True)
class Plan:
    """mix, alongside: as in `recipes/cotrain.py`, with one main task and all heads that ask questions of their own."""

    mix: dict[str, float]
    alongside: dict[str, float]


def plan_tasks(source: SampleSource, default_task: str | None, wanted: Sequence[str] = ()) -> Plan:
    """What a data set can teach. wanted: tasks; none: the model's own if it can be taught, else the first that can.

    Raises ValueError for a task that the data set does not serve.
    """
    strangers = [task for task in wanted if task not in source.tasks]
    if strangers:
        raise ValueError(f"tasks names {', '.join(strangers)}: the data set serves {', '.join(source.tasks)}")
    if wanted:
        return Plan(dict.fromkeys(wanted, 1.0), {})
    heads = {task: load_head(task) for task in source.tasks}
    learned = [task for task, head in heads.items() if head.spec.query_type == "learned"]
    prompted = [task for task, head in heads.items() if isinstance(head, MakesQueryInputs)]
    if not learned and not prompted:
        raise ValueError(
            f"no installed head can learn from the data set; it serves {', '.join(source.tasks) or 'none'}"
        )
    if not learned:
        return Plan(dict.fromkeys(prompted, 1.0), {})
    main = default_task if default_task in learned else learned[-1]
    return Plan({main: 1.0}, dict.fromkeys(prompted, 0.5))


def describe_names(table: Vocabulary, label_space: LabelSpace, policy: str) -> list[str]:
    """Lines about the names of a data set that a vocabulary does not know. policy: "error", "void" or "new"."""
    missing = unknown_names(table, [label_space])
    if not missing:
        return [f"the vocabulary knows all names of the {len(label_space)} classes"]
    fates = {
        "error": "which is an error",
        "void": "so what they name counts as void",
        "new": "so each gets a new direction at random, which only training gives a meaning",
    }
    known = table.known_names or ()
    lines = [f"the vocabulary does not know {len(missing)} names, {fates[policy]}:"]
    for name in missing:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.7)
        lines.append(f"  {name}" + (f" (it knows {', '.join(near)})" if near else ""))
    return lines


def named_split(splits: Sequence[str], wanted: str | None, words: Sequence[str], *, is_needed: bool) -> str | None:
    """The wanted split, else the first whose name starts with one of `words`. ValueError if a needed one is not found.

    A single split is the one that is needed, whatever its name.
    """
    if wanted is not None:
        if wanted not in splits:
            raise ValueError(f"there is no split {wanted!r}: expected one of {', '.join(splits)}")
        return wanted
    for word in words:
        for split in splits:
            if split.lower().startswith(word):
                return split
    if not is_needed:
        return None
    if len(splits) == 1:
        return splits[0]
    raise ValueError(f"which split to train on is not clear: name one of {', '.join(splits)} by --split")


def picture_settings(processor: dict[str, Any]) -> dict[str, Any]:
    """Size and normalisation of a processor_config.json, as settings of `recipes/cotrain.py`."""
    pictures = processor.get("image_processor", {})
    side = int(pictures.get("size", {}).get("shortest_edge", 192))
    return {
        "transform": {"size": [side, side], "scale": [0.6, 1.8]},
        "mean": pictures.get("image_mean", [0.5, 0.5, 0.5]),
        "std": pictures.get("image_std", [0.5, 0.5, 0.5]),
    }
