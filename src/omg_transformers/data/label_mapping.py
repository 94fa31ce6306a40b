"""Classes of one label space found in another, by name and synonym."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from omg_transformers.data.regions import merge_regions, merge_stuff
from omg_transformers.data.sources import iterate
from omg_transformers.labels import joint_label_space
from omg_transformers.structures import Annotation, Sample, Segment

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from omg_transformers.data.sources import SampleSource
    from omg_transformers.labels import JointLabelSpace, LabelSpace

Unmapped: TypeAlias = Literal["error", "void", "class_agnostic"]


def class_mapping(source_space: LabelSpace, target_space: LabelSpace) -> tuple[int | None, ...]:
    """Per class of `source_space` its index in `target_space`, None where no name or synonym fits.

    The name counts first, then the synonyms in their order; a class of the same kind (thing or stuff) is preferred.
    """
    return tuple(_find((label.name, *label.synonyms), target_space, label.is_thing) for label in source_space.classes)


def join_sources(
    sources: Sequence[SampleSource],
    *,
    name: str = "joint",
    same: Sequence[Sequence[str]] = (),
    apart: Sequence[str] = (),
) -> tuple[JointLabelSpace, list[MappedSource]]:
    """One label space for several sources, and each source in those of its classes that it annotates itself.

    See `joint_label_space` for the rule, `same` and `apart`; the result's `report()` says what was merged. A batch is
    of one source, so a loss over its own classes never teaches that what only other sources annotate is void.
    """
    spaces = list(dict.fromkeys(source.label_space for source in sources))
    titles = [space.name for space in spaces]
    # Spaces that are named after a folder may share a name and differ in their classes.
    titles = [
        title if titles.count(title) == 1 else f"{title}_{titles[: place + 1].count(title)}"
        for place, title in enumerate(titles)
    ]
    renamed = [replace(space, name=title) for space, title in zip(spaces, titles, strict=True)]
    joint = joint_label_space(renamed, name=name, same=same, apart=apart)
    mapped = []
    for source in sources:
        place = spaces.index(source.label_space)
        space, mapping = joint.part(place, name=f"{name}/{titles[place]}")
        mapped.append(MappedSource(source, space, mapping=mapping))
    return joint, mapped


def map_annotation(
    annotation: Annotation, source_space: LabelSpace, target_space: LabelSpace, *, unmapped: Unmapped = "error"
) -> Annotation:
    """The annotation with classes of `target_space`; stuff that falls into one class becomes one segment.

    unmapped: what to do with a segment whose class is missing there: "error" raises ValueError, "void" makes its
    pixels void, "class_agnostic" keeps its mask with class -1.
    """
    if unmapped not in ("error", "void", "class_agnostic"):
        raise ValueError(f"unmapped is {unmapped!r}: expected 'error', 'void' or 'class_agnostic'")
    return _apply(annotation, class_mapping(source_space, target_space), source_space, target_space, unmapped)


class MappedSource:
    """A source seen through another label space, see `map_annotation`. mapping: default found by `class_mapping`."""

    def __init__(
        self,
        source: SampleSource,
        label_space: LabelSpace,
        *,
        unmapped: Unmapped = "error",
        mapping: tuple[int | None, ...] | None = None,
    ) -> None:
        self.source, self.label_space, self.unmapped = source, label_space, unmapped
        self.mapping = class_mapping(source.label_space, label_space) if mapping is None else mapping
        if unmapped == "error":
            missing = [
                name for name, target in zip(source.label_space.names, self.mapping, strict=True) if target is None
            ]
            if missing:
                raise ValueError(_missing_message(missing, source.label_space, label_space))

    @property
    def num_samples(self) -> int | None:
        """As the source."""
        return self.source.num_samples

    @property
    def tasks(self) -> tuple[str, ...]:
        """As the source."""
        return self.source.tasks

    def __iter__(self) -> Iterator[Sample]:
        return iterate(self)

    def sample(self, index: int) -> Sample:
        """Sample number `index` with the new classes."""
        sample = self.source.sample(index)
        annotation = _apply(sample.annotation, self.mapping, sample.label_space, self.label_space, self.unmapped)
        return replace(sample, annotation=annotation, label_space=self.label_space)


def classes_of_categories(
    categories: Sequence[dict[str, Any]], label_space: LabelSpace, *, where: str, needed: Collection[int] | None = None
) -> dict[int, int]:
    """Category id of a COCO file -> class: by name (see LabelSpace.find) or by supercategory.

    needed: ids that must have a class, None: all. Raises ValueError that lists those without one. where: the file, for
    the message.
    """
    found: dict[int, int] = {}
    missing: list[str] = []
    for category in categories:
        is_thing = bool(category["isthing"]) if "isthing" in category else None
        names = [str(category[key]) for key in ("name", "supercategory") if category.get(key)]
        target = _find(names, label_space, is_thing)
        if target is not None:
            found[int(category["id"])] = target
        elif needed is None or category["id"] in needed:
            missing.append(f"{category['id']} ({category['name']})")
    if missing:
        raise ValueError(
            f"{where}: {len(missing)} categories have no class in the label space {label_space.name!r}: "
            f"{', '.join(missing[:8])}. Add them as names or synonyms, or pass another label_space"
        )
    return found


def certain_classes(certain: frozenset[int] | None, mapping: Sequence[int | None]) -> frozenset[int] | None:
    """The certain classes after a mapping: those into which only certain ones fall. None: all, before and after."""
    if certain is None:
        return None
    places = [(place, target) for place, target in enumerate(mapping) if target is not None and target >= 0]
    open_classes = {target for place, target in places if place not in certain}
    return frozenset(target for _, target in places) - open_classes


def _find(names: Sequence[str], label_space: LabelSpace, is_thing: bool | None) -> int | None:
    if label_space.is_class_agnostic:
        return -1
    found = [target for name in names if (target := label_space.find(name)) is not None]
    # "food-other-merged" is stuff and must not fall into the things called "food".
    alike = [target for target in found if is_thing is None or label_space.is_thing[target] == is_thing]
    return next(iter(alike or found), None)


def _apply(
    annotation: Annotation,
    mapping: tuple[int | None, ...],
    source_space: LabelSpace,
    target_space: LabelSpace,
    unmapped: Unmapped,
) -> Annotation:
    segments: list[Segment] = []
    voids = [[rle] for rle in annotation.void]
    for segment in annotation.segments:
        target = mapping[segment.category_id] if segment.category_id >= 0 else -1
        if target is None and unmapped == "error":
            name = source_space.names[segment.category_id]
            raise ValueError(_missing_message([name], source_space, target_space))
        if target is None and unmapped == "void":
            for frame, rle in enumerate(segment.masks):
                voids[frame].append(rle)
            continue
        segments.append(Segment(-1 if target is None else target, segment.masks, segment.track_id, segment.is_crowd))
    is_thing = tuple(target_space.is_thing)
    return Annotation(
        size=annotation.size,
        is_thing=is_thing,
        segments=merge_stuff(segments, is_thing),
        void=tuple(merge_regions(rles) for rles in voids),
        certain_classes=certain_classes(annotation.certain_classes, mapping),
    )


def _missing_message(missing: Sequence[str], source_space: LabelSpace, target_space: LabelSpace) -> str:
    return (
        f"{len(missing)} classes of {source_space.name!r} are neither names nor synonyms in {target_space.name!r}: "
        f"{', '.join(missing[:8])}. Add synonyms, or choose unmapped='void' or 'class_agnostic'"
    )
