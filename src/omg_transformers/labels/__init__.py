"""Class names and what they become: label spaces, joint spaces, vocabularies of text prototypes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omg_transformers.labels.builtin import builtin_label_space, builtin_label_space_names
from omg_transformers.labels.joint import JointLabelSpace, joint_label_space
from omg_transformers.labels.label_space import LabelClass, LabelSpace
from omg_transformers.labels.names import split_names

if TYPE_CHECKING:
    from omg_transformers.labels.vocabulary import PROMPT_TEMPLATES, Vocabulary

__all__ = [
    "PROMPT_TEMPLATES",
    "JointLabelSpace",
    "LabelClass",
    "LabelSpace",
    "Vocabulary",
    "builtin_label_space",
    "builtin_label_space_names",
    "joint_label_space",
    "split_names",
]


def __getattr__(name: str) -> Any:
    # Label spaces are read by commands that must start fast; only a vocabulary needs torch.
    if name in ("PROMPT_TEMPLATES", "Vocabulary"):
        from omg_transformers.labels import vocabulary

        return getattr(vocabulary, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
