"""What is asked of the model: a head, its classes and its options, checked before any work is done."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from typing import TYPE_CHECKING, Any

from omg_transformers.labels import LabelSpace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from omg_transformers.model.modeling import OMGSegModel
    from omg_transformers.plugins import TaskHead
    from omg_transformers.processing.processor import Labels, OMGSegProcessor

OWN_PARAMETERS = ("output", "sizes", "is_thing")


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """What is asked of every picture or frame. options: the head's own.

    label_space, class_embeds (K, P, D): None when the head needs no classes.
    """

    head: TaskHead
    label_space: LabelSpace | None
    class_embeds: Tensor | None
    options: dict[str, Any]


def make_request(
    model: OMGSegModel,
    processor: OMGSegProcessor,
    head: TaskHead,
    *,
    labels: Labels | None = None,
    options: Mapping[str, Any] | None = None,
    known_options: Sequence[str] = (),
) -> Request:
    """Check and complete a request. known_options: further words of the caller, for the nearest in errors.

    Options that are not given are the checkpoint's `head_options` of the task; a video task that has none takes those
    of its picture twin.
    """
    given = dict(options or {})
    space = resolve_labels(model, processor, labels) if head.spec.has_classes or labels is not None else None
    if head.spec.has_classes and space is None:
        raise ValueError(f"task {head.spec.name!r} needs class names and this model has none: pass labels=[...]")
    check_options(head, given, known_options)
    stored: Mapping[str, Any] = model.config.head_options or {}
    name = head.spec.name if head.spec.name in stored else head.spec.name.removeprefix("video_")
    defaults = stored.get(name, {})
    check_options(head, defaults, known_options, f"the checkpoint's head_options[{name!r}]: ")
    class_embeds = None if space is None else processor.class_embeds(space)
    return Request(head, space, class_embeds, {**defaults, **given})


def resolve_labels(model: OMGSegModel, processor: OMGSegProcessor, labels: Labels | None) -> LabelSpace | None:
    """The label space of a call: names, one of the checkpoint's spaces by name, a built-in one, or the default."""
    spaces: Mapping[str, Any] = model.config.label_spaces or {}
    if isinstance(labels, str) and labels in spaces:
        return LabelSpace.from_dict(spaces[labels])
    space = processor.resolve_labels(labels)
    if space is None and spaces:
        return LabelSpace.from_dict(next(iter(spaces.values())))
    return space


def check_options(
    head: TaskHead, options: Mapping[str, Any], known_options: Sequence[str] = (), origin: str = ""
) -> None:
    """Refuse options that the head's `postprocess` does not take."""
    parameters = inspect.signature(head.postprocess).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = [parameter.name for parameter in parameters if parameter.name not in OWN_PARAMETERS]
    for name in options:
        if name not in known:
            nearest = difflib.get_close_matches(name, [*known, *known_options], n=1)
            hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
            raise TypeError(
                f"{origin}unknown option {name!r}: task {head.spec.name!r} takes {', '.join(known) or 'none'}.{hint}"
            )
