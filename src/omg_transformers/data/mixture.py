"""From settings to the parts of a mix: which source, in which classes, for which task, how often."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from omg_transformers.data.clips import ClipSource, FramesSource, PseudoClips
from omg_transformers.data.composer import ComposedScenes
from omg_transformers.data.label_mapping import MappedSource, join_sources
from omg_transformers.data.procedural import ProceduralScenes
from omg_transformers.data.readers import LAYOUTS, open_layout
from omg_transformers.data.readers.videos import VideoSource
from omg_transformers.data.stream import MixPart
from omg_transformers.data.transforms import TrainTransform
from omg_transformers.labels import LabelSpace, builtin_label_space
from omg_transformers.settings import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from omg_transformers.data.sources import SampleSource
    from omg_transformers.data.transforms import Transform


@dataclass(frozen=True)
class ClipSettings:
    """Clips of a source of videos, see ClipSource."""

    num_frames: int = 2
    interval: int = 2
    seed: int = 0


@dataclass(frozen=True)
class FramesSettings:
    """Frames of a source of videos as pictures, see FramesSource."""

    every: int = 1


@dataclass(frozen=True)
class PseudoClipSettings:
    """Clips made from pictures, see PseudoClips."""

    num_frames: int = 2


@dataclass(frozen=True)
class TransformSettings:
    """How the transform of one source differs from that of the run, see TrainTransform; null: it does not."""

    size: tuple[int, int] | None = None
    scale: tuple[float, float] | None = None
    draw: Literal["log_uniform", "uniform"] | None = None
    turns: bool | None = None
    shares_window: bool | None = None
    flip_probability: float | None = None
    color_jitter: float | None = None
    min_area: int | None = None

    def apply(self, transform: Transform | None) -> Transform:
        """The transform of the run with these changes. Raises ValueError when it is no TrainTransform."""
        if not isinstance(transform, TrainTransform):
            kind = "none" if transform is None else type(transform).__name__
            raise ValueError(f"its transform changes TrainTransform, but the run's is {kind}: give the mix one")
        return replace(transform, **{name: value for name, value in asdict(self).items() if value is not None})


@dataclass(frozen=True)
class SourceSettings:
    """Where samples come from. weight: share among the sources of a task. tasks: default all that it serves.

    kind: "scenes" (drawn, no files) or a layout on disk, see `omg_transformers.data.readers.LAYOUTS`.
    split, label_space (a built-in one): for kinds that are read from files. options: of the reader or generator.
    What is made of the samples, in this order; {} for the defaults of each, null to leave it out:
    clip: short clips of videos; nothing else may follow. frames: frames of videos as pictures. compose: options of
    ComposedScenes, new pictures from these. pseudo_clip: clips from pictures.
    transform: how its random views differ from those of the run.
    """

    kind: str
    name: str = ""
    weight: float = 1.0
    tasks: list[str] | None = None
    root: Path | None = None
    split: str | None = None
    label_space: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    clip: ClipSettings | None = None
    frames: FramesSettings | None = None
    compose: dict[str, Any] | None = None
    pseudo_clip: PseudoClipSettings | None = None
    transform: TransformSettings | None = None

    def __post_init__(self) -> None:
        kinds = ("scenes", *(layout.name for layout in LAYOUTS))
        if self.kind not in kinds:
            raise ValueError(f"kind is {self.kind!r}: no such layout{nearest(self.kind, kinds)}")
        if self.kind != "scenes" and self.root is None:
            raise ValueError(f"root is missing: give the folder of the {self.kind} data set")
        after = [name for name in ("frames", "compose", "pseudo_clip") if getattr(self, name) is not None]
        if self.clip is not None and after:
            raise ValueError(
                f"clip and {' and '.join(after)} are both set: clip makes clips of videos, the others make pictures or "
                "clips of pictures. Keep one, or list the source twice"
            )

    @property
    def title(self) -> str:
        """What logs and errors call it."""
        return self.name or self.kind


@dataclass(frozen=True)
class JointSettings:
    """One label space for all sources, see `join_sources`. same: groups of names that mean one class. apart:
    "space/class" of classes that join no other.
    """

    name: str = "joint"
    same: list[list[str]] = field(default_factory=list)
    apart: list[str] = field(default_factory=list)


def build_sources(
    settings: Sequence[SourceSettings],
    joint: JointSettings | None = None,
    is_known: Callable[[str], bool] | None = None,
    *,
    unknown: Literal["error", "void"] = "error",
) -> tuple[list[SampleSource], list[str]]:
    """All sources, in one label space if `joint` asks for it, and lines on what was merged; see `build_source`."""
    if joint is None:
        return [build_source(each, is_known, unknown=unknown) for each in settings], []
    try:
        found, mapped = join_sources([build_source(each) for each in settings], **asdict(joint))
    except ValueError as error:
        raise ValueError(f"joint: {error}") from error
    sources: list[SampleSource] = [
        source if is_known is None else _keep_known_classes(source, is_known, unknown) for source in mapped
    ]
    return sources, found.report().splitlines()


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
        source = _derived(source, settings)
        return source if is_known is None else _keep_known_classes(source, is_known, unknown)
    except (TypeError, ValueError, LookupError, OSError) as error:
        raise ValueError(f"source {settings.title}: {error}") from error


def _derived(source: SampleSource, settings: SourceSettings) -> SampleSource:
    if settings.clip is not None:
        return ClipSource(source, **asdict(settings.clip))
    if settings.frames is not None:
        source = FramesSource(source, every=settings.frames.every)
    if settings.compose is not None:
        source = ComposedScenes(source, **settings.compose)
    if settings.pseudo_clip is not None:
        source = PseudoClips(source, num_frames=settings.pseudo_clip.num_frames)
    return source


def _keep_known_classes(source: SampleSource, is_known: Callable[[str], bool], unknown: str) -> SampleSource:
    space = source.label_space
    if space.is_class_agnostic:
        return source
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

    transform: of the run; `transform` of a source changes it, and pseudo clips give every frame its own window.
    Parts are named "task@source". Raises ValueError for a task that no source serves, for equal names, and for whole
    videos, which differ in length and would fill the memory.
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
            MixPart(
                task,
                source,
                share * settings.weight / total,
                _view(settings, source, transform),
                f"{task}@{settings.title}",
            )
            for settings, source in wanted
        ]
    names = [part.name for part in parts]
    if len(set(names)) < len(names):
        raise ValueError(f"two sources of one task have the same name in {', '.join(names)}: give each a `name`")
    return parts


def _view(settings: SourceSettings, source: SampleSource, transform: Transform | None) -> Transform | None:
    inner = source
    while isinstance(inner, MappedSource):
        inner = inner.source
    if isinstance(inner, VideoSource):
        raise ValueError(
            f"source {settings.title} gives whole videos: set clip: {{num_frames: 2, interval: 2}} for clips of them, "
            "or frames: {every: 5} for pictures"
        )
    changes = settings.transform
    if (
        settings.pseudo_clip is not None
        and transform is not None
        and (changes is None or changes.shares_window is None)
    ):
        changes = replace(changes or TransformSettings(), shares_window=False)
    try:
        return transform if changes is None else changes.apply(transform)
    except ValueError as error:
        raise ValueError(f"source {settings.title}: {error}") from error
