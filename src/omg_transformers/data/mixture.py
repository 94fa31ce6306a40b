"""From settings to the parts of a mix: which source, in which classes, for which task, how often."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from omg_transformers.data.composer import ComposedScenes
from omg_transformers.data.label_mapping import MappedSource
from omg_transformers.data.procedural import ProceduralScenes
from omg_transformers.data.readers import LAYOUTS, open_layout
from omg_transformers.data.stream import MixPart
from omg_transformers.labels import LabelSpace, builtin_label_space
from omg_transformers.settings import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from omg_transformers.data.sources import SampleSource
    from omg_transformers.data.transforms import Transform


@dataclass(frozen=True)
class SourceSettings:
    """Where samples come from. weight: share among the sources of a task. tasks: default all that it serves.

    kind: "scenes" (drawn, no files) or a layout on disk, see `omg_transformers.data.readers.LAYOUTS`.
    split, label_space (a built-in one): for kinds that are read from files. options: of the reader or generator.
    compose: options of ComposedScenes, {} for its defaults, null for the pictures as they are.
    """

    kind: str
    name: str = ""
    weight: float = 1.0
    tasks: list[str] | None = None
    root: Path | None = None
    split: str | None = None
    label_space: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    compose: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        kinds = ("scenes", *(layout.name for layout in LAYOUTS))
        if self.kind not in kinds:
            raise ValueError(f"kind is {self.kind!r}: no such layout{nearest(self.kind, kinds)}")
        if self.kind != "scenes" and self.root is None:
            raise ValueError(f"root is missing: give the folder of the {self.kind} data set")

    @property
    def title(self) -> str:
        """What logs and errors call it."""
        return self.name or self.kind


def build_source(
    settings: SourceSettings,
    is_known: Callable[[str], bool] | None = None,
    *,
    unknown: Literal["error", "void"] = "error",
) -> SampleSource:
    """The samples of one source. Raises ValueError that names it.

    is_known: whether the vocabulary knows a name. Classes with an unknown name are an error, or become void.
    """
    try:
        if settings.root is None:
            source: SampleSource = ProceduralScenes(**settings.options)
        else:
            space = None if settings.label_space is None else builtin_label_space(settings.label_space)
            source = open_layout(settings.kind, settings.root, settings.split, label_space=space, **settings.options)
        if settings.compose is not None:
            source = ComposedScenes(source, **settings.compose)
        return source if is_known is None else _keep_known_classes(source, is_known, unknown)
    except (TypeError, ValueError, LookupError, OSError) as error:
        raise ValueError(f"source {settings.title}: {error}") from error


def _keep_known_classes(source: SampleSource, is_known: Callable[[str], bool], unknown: str) -> SampleSource:
    space = source.label_space
    known = tuple(entry for entry in space.classes if all(is_known(name) for name in (entry.name, *entry.synonyms)))
    if len(known) == len(space.classes):
        return source
    if unknown == "error" or not known:
        names = ", ".join(entry.name for entry in space.classes if entry not in known)
        raise ValueError(
            f"the vocabulary does not know these classes of {space.name!r}: {names}. Add them to it, or make them void"
        )
    return MappedSource(source, LabelSpace(f"{space.name}_known", known), unmapped="void")


def mix_parts(
    mix: Mapping[str, float],
    sources: Sequence[tuple[SourceSettings, SampleSource]],
    transform: Transform | None = None,
) -> list[MixPart]:
    """Every task on every source that serves it; a task's share is split by the weights of its sources.

    Parts are named "task@source". Raises ValueError for a task that no source serves, and for equal names.
    """
    parts: list[MixPart] = []
    for task, share in mix.items():
        wanted = [
            (settings, source)
            for settings, source in sources
            if task in source.tasks and (settings.tasks is None or task in settings.tasks)
        ]
        if not wanted:
            served = sorted({name for _, source in sources for name in source.tasks})
            raise ValueError(f"mix asks for the task {task!r}, which no source serves; they serve {', '.join(served)}")
        total = sum(settings.weight for settings, _ in wanted)
        parts += [
            MixPart(task, source, share * settings.weight / total, transform, f"{task}@{settings.title}")
            for settings, source in wanted
        ]
    names = [part.name for part in parts]
    if len(set(names)) < len(names):
        raise ValueError(f"two sources of one task have the same name in {', '.join(names)}: give each a `name`")
    return parts
