"""What is asked of the model: a head, its classes and its options, checked before any work is done."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

import torch

from omg_transformers.inference.results import above_thresholds
from omg_transformers.labels import LabelSpace
from omg_transformers.readout.clicks import hold_clicks
from omg_transformers.readout.stability import weigh_by_stability

if TYPE_CHECKING:
    from torch import Tensor

    from omg_transformers.model.modeling import OMGSegModel
    from omg_transformers.plugins import TaskHead
    from omg_transformers.processing.processor import Labels, OMGSegProcessor
    from omg_transformers.structures import QueryOutput, Segments

OWN_PARAMETERS = ("output", "sizes", "is_thing")
# Per name whether it was trained, or the trained names among those asked for, or TRAINED: those of the checkpoint.
SeenClasses = Sequence[bool] | Sequence[str] | str
TRAINED = "trained"


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """What is asked of every picture or frame. options: the head's own.

    label_space, class_embeds (K, P, D): None when the head needs no classes. thresholds: per name the least score of
    its segments, on top of the head's own options; None: those say all. seen_classes: per name whether it was trained;
    None: the model alone names, without its CLIP backbone.
    """

    head: TaskHead
    label_space: LabelSpace | None
    class_embeds: Tensor | None
    options: dict[str, Any]
    thresholds: tuple[float, ...] | None = None
    seen_classes: tuple[bool, ...] | None = None

    def class_inputs(self, device: torch.device) -> dict[str, Tensor]:
        """What the model is told about the names: `class_embeds` and `seen_classes`, each only if there are any."""
        inputs = {} if self.class_embeds is None else {"class_embeds": self.class_embeds.to(device)}
        if self.seen_classes is not None:
            inputs["seen_classes"] = torch.tensor(self.seen_classes, device=device)
        return inputs

    def answer(
        self, output: QueryOutput, *, sizes: Sequence[tuple[int, int]], prompts: Mapping[str, Any] | None = None
    ) -> list[Segments]:
        """What the head makes of the model's output, one result per sample.

        prompts: what the model was asked. Clicks among them hold in the results (`hold_clicks`); several answers to
        each (`multimask_output`) are scored by quality times stability: the quality alone does not compare extents.
        """
        prompts = prompts or {}
        is_thing = self.label_space.is_thing if self.label_space is not None else ()
        results = self.head.postprocess(output, sizes=sizes, is_thing=is_thing, **self.options)
        if prompts.get("multimask_output"):
            results = weigh_by_stability(results, output)
        if prompts.get("input_points") is not None:
            results = hold_clicks(results, output, prompts["input_points"], prompts.get("input_labels"))
        if self.thresholds is None:
            return results
        return [above_thresholds(segments, self.thresholds) for segments in results]


def make_request(
    model: OMGSegModel,
    processor: OMGSegProcessor,
    head: TaskHead,
    *,
    labels: Labels | None = None,
    seen_classes: SeenClasses | None = None,
    options: Mapping[str, Any] | None = None,
    known_options: Sequence[str] = (),
) -> Request:
    """Check and complete a request. known_options: further words of the caller, for the nearest in errors.

    seen_classes: as `resolve_seen_classes` takes it: fuses in the CLIP backbone's opinion of names; None: it does not.

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
    seen = None if seen_classes is None else resolve_seen_classes(model, space, seen_classes)
    request = Request(head, space, class_embeds, {**defaults, **given}, seen_classes=seen)
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


def resolve_seen_classes(model: OMGSegModel, space: LabelSpace | None, seen_classes: SeenClasses) -> tuple[bool, ...]:
    """Per name of `space` whether it was trained; of the others the CLIP backbone knows more than the decoder.

    seen_classes: one flag per name; the names that were trained, the others were not; or "trained": a name was if one
    of the checkpoint's own label spaces has it or a synonym of it.
    ValueError: the backbone has no CLIP head, there are no names, or it is not about these names.
    """
    if not model.backbone.has_clip_head:
        raise ValueError(
            f"seen_classes needs a backbone with a CLIP head, and {model.config.backbone_kind!r} has none: leave it out"
        )
    if space is None:
        raise ValueError("seen_classes says which names were trained, but there are none: pass labels=[...]")
    if isinstance(seen_classes, str):
        return _trained(model, space, seen_classes)
    given = seen_classes.tolist() if hasattr(seen_classes, "tolist") else list(seen_classes)
    names = [name for name in given if isinstance(name, str)]
    if len(names) == len(given):
        indices = {space.index(name) for name in names}
        return tuple(index in indices for index in range(len(space)))
    if any(not isinstance(flag, bool) for flag in given):
        raise TypeError(f"seen_classes is {given}: expected True or False for each name, or the trained names")
    if len(given) != len(space):
        raise ValueError(f"seen_classes has {len(given)} flags: expected {len(space)}, one per name")
    return tuple(given)


def _trained(model: OMGSegModel, space: LabelSpace, word: str) -> tuple[bool, ...]:
    stored: Mapping[str, Any] = model.config.label_spaces or {}
    spaces = [LabelSpace.from_dict(content) for content in stored.values()]
    spaces = [own for own in spaces if not own.is_class_agnostic]
    if word != TRAINED:
        raise ValueError(f"seen_classes is {word!r}: expected {TRAINED!r}, a list of names, or one flag per name")
    if not spaces:
        raise ValueError(
            f"seen_classes is {TRAINED!r}, but the checkpoint does not say which names it was trained with (its "
            "label_spaces are empty): list the trained names"
        )
    return tuple(any(own.find(text) is not None for own in spaces for text in prompts) for prompts in space.prompts)


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
