"""What is asked of the model: a head, its classes and its options, checked before any work is done."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any

from omg_transformers.inference.results import above_thresholds
from omg_transformers.labels import LabelSpace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from omg_transformers.model.modeling import OMGSegModel
    from omg_transformers.plugins import TaskHead
    from omg_transformers.processing.processor import Labels, OMGSegProcessor
    from omg_transformers.structures import QueryOutput, Segments

OWN_PARAMETERS = ("output", "sizes", "is_thing")


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """What is asked of every picture or frame. options: the head's own.

    label_space, class_embeds (K, P, D): None when the head needs no classes. thresholds: per name the least score of
    its segments, on top of the head's own options; None: those say all.
    """

    head: TaskHead
    label_space: LabelSpace | None
    class_embeds: Tensor | None
    options: dict[str, Any]
    thresholds: tuple[float, ...] | None = None

    def answer(self, output: QueryOutput, *, sizes: Sequence[tuple[int, int]]) -> list[Segments]:
        """What the head makes of the model's output, one result per sample."""
        is_thing = self.label_space.is_thing if self.label_space is not None else ()
        results = self.head.postprocess(output, sizes=sizes, is_thing=is_thing, **self.options)
        if self.thresholds is None:
            return results
        return [above_thresholds(segments, self.thresholds) for segments in results]


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
    of its picture twin. `threshold` may be a mapping {name: score}: names it leaves out keep the usual one.
    """
    given = dict(options or {})
    of_names = given.pop("threshold") if isinstance(given.get("threshold"), Mapping) else None
    space = resolve_labels(model, processor, labels) if head.spec.has_classes or labels is not None else None
    if head.spec.has_classes and space is None:
        raise ValueError(f"task {head.spec.name!r} needs class names and this model has none: pass labels=[...]")
    check_options(head, given, known_options)
    stored: Mapping[str, Any] = model.config.head_options or {}
    name = head.spec.name if head.spec.name in stored else head.spec.name.removeprefix("video_")
    defaults = stored.get(name, {})
    check_options(head, defaults, known_options, f"the checkpoint's head_options[{name!r}]: ")
    class_embeds = None if space is None else processor.class_embeds(space)
    request = Request(head, space, class_embeds, {**defaults, **given})
    return request if of_names is None else _with_thresholds(request, of_names)


def _with_thresholds(request: Request, of_names: Mapping[str, float]) -> Request:
    """The head leaves out what no name wants, then each name what is below its own."""
    space, head = request.label_space, request.head
    if space is None:
        raise ValueError(f"threshold names {', '.join(of_names)}, but no labels are asked for: pass labels=[...]")
    parameter = inspect.signature(head.postprocess).parameters.get("threshold")
    if parameter is None:
        raise TypeError(f"unknown option 'threshold': task {head.spec.name!r} takes none")
    usual = request.options.get("threshold", parameter.default)
    values = [0.0 if usual is None else float(usual)] * len(space)
    for name, value in of_names.items():
        check_threshold(value, f"threshold[{name!r}]")
        values[space.index(name)] = float(value)
    return dataclasses.replace(request, options={**request.options, "threshold": min(values)}, thresholds=tuple(values))


def check_threshold(value: Any, name: str = "threshold") -> None:
    """Refuse what is no score."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) <= 1:
        raise ValueError(f"{name} is {value!r}: expected a score from 0 to 1")


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
