"""The walk of the data doctor: every sample of every split is read, and nothing that is wrong stops it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from omg_transformers.data.doctor import classes
from omg_transformers.data.doctor.files import JsonFacts, read_facts
from omg_transformers.data.doctor.kinds import in_words, kind_of_error, numbers_without_class
from omg_transformers.data.doctor.pictures import PictureIndex
from omg_transformers.data.doctor.report import CheckReport, ClassCounts, Problem, SplitReport
from omg_transformers.data.doctor.samples import Fault, check_annotation, count_classes
from omg_transformers.data.doctor.sizes import check_sizes
from omg_transformers.data.doctor.tracks import check_tracks
from omg_transformers.data.readers import detect_layouts, open_layout
from omg_transformers.metrics.label_png import listed

if TYPE_CHECKING:
    from pathlib import Path

    from omg_transformers.data.sources import SampleSource
    from omg_transformers.labels import LabelSpace
    from omg_transformers.structures import Sample


def check_source(
    source: SampleSource | Mapping[str, SampleSource],
    *,
    title: str = "samples",
    limit: int | None = None,
    show_progress: bool = False,
) -> CheckReport:
    """Look for faults in all samples of a source, or of several: the splits of one data set, by name.

    limit: only the first samples of each; needed for endless sources. Raises ValueError when it is missing there.
    """
    sources = source if isinstance(source, Mapping) else {"": source}
    report = CheckReport(title, sources=dict(sources))
    check = _Check(report, has_own_classes=True)
    check.run(sources, limit=limit, show_progress=show_progress)
    return report


def check_folder(
    root: str | Path,
    kind: str | None = None,
    splits: Iterable[str] | None = None,
    *,
    label_space: LabelSpace | None = None,
    against: Iterable[str | Path] = (),
    limit: int | None = None,
    show_progress: bool = False,
    **options: Any,
) -> CheckReport:
    """Look for faults in a data set on disk. kind: its layout, by default the first that fits.

    splits: by default all. against: folders of other data sets that must not share pictures with this one.
    options: of the reader. What cannot be opened is one of the faults, not an exception; a
    folder in no layout, an unknown kind or split raise ValueError.
    """
    kind, names = choose_layout(root, kind, splits)
    report = CheckReport(f"{root} as {kind}")
    opened: dict[str, SampleSource] = {}
    for name in names:
        try:
            opened[name] = open_layout(kind, root, name, label_space=label_space, **options)
        except Exception as error:  # noqa: BLE001 - whatever a reader stumbles over is a fault of the files
            found = kind_of_error(error)
            report.add(Problem("cannot_open" if found == "unusable_sample" else found, in_words(error), name))
    report.sources = opened
    check = _Check(report, has_own_classes=label_space is None, others=_open_others(against))
    check.run(opened, limit=limit, show_progress=show_progress)
    return report


def choose_layout(root: str | Path, kind: str | None, splits: Iterable[str] | None) -> tuple[str, tuple[str, ...]]:
    """The layout of a folder and the splits to work on. Raises ValueError when there is none, or none of this name."""
    from omg_transformers.data.doctor.detection import describe_near
    from omg_transformers.settings import nearest

    found = {detection.layout.name: detection.splits for detection in detect_layouts(root)}
    if kind is None and not found:
        raise ValueError(f"{root} is in no known layout. {describe_near(root)}")
    chosen = next(iter(found)) if kind is None else kind
    wanted = None if splits is None else tuple(splits)
    if chosen not in found:
        if wanted is not None:
            return chosen, wanted
        fitting = f"it fits {', '.join(found)}" if found else describe_near(root)
        raise ValueError(f"{root} does not look like {chosen!r}: {fitting}")
    for name in wanted or ():
        if name not in found[chosen]:
            raise ValueError(f"{root} has no split {name!r} in the layout {chosen}{nearest(name, found[chosen])}")
    return chosen, wanted or found[chosen]


class _Check:
    """One walk. has_own_classes: the ids of the label spaces are those of the files."""

    def __init__(
        self, report: CheckReport, *, has_own_classes: bool, others: Mapping[str, SampleSource] | None = None
    ) -> None:
        self._report, self._has_own_classes, self._others = report, has_own_classes, others or {}
        self._pictures = PictureIndex(self._others)

    def run(self, sources: Mapping[str, SampleSource], *, limit: int | None, show_progress: bool) -> None:
        lengths = {name: _length(source, limit) for name, source in sources.items()}
        total = sum(lengths.values()) + sum(source.num_samples or 0 for source in self._others.values())
        with tqdm(total=total, unit="sample", disable=not show_progress) as bar:
            for name, source in sources.items():
                self._walk(name, source, lengths[name], bar)
            for name, source in self._others.items():
                self._look_through(name, source, bar)
        for problem in self._pictures.problems(lengths):
            self._report.add(problem)
        for problem in classes.compare_splits(self._report.splits):
            self._report.add(problem)

    def _walk(self, split: str, source: SampleSource, length: int, bar: tqdm[Any]) -> None:
        space = source.label_space
        counts = ClassCounts.empty(len(space))
        found = SplitReport(split, space, source.tasks, length, 0, 0, counts)
        self._report.splits.append(found)
        facts = self._facts(split, source)
        by_id: dict[str, int] = {}
        strangers: set[int] = set()
        for index in range(length):
            for sample, problem, numbers in _samples(source, index):
                if problem is not None:
                    self._report.add(_placed(problem, split, index))
                    strangers.update(numbers_without_class(problem.message) if _is_about_ids(problem) else ())
                if sample is None:
                    continue
                found.num_usable += 1
                found.num_frames += len(sample.frames)
                found.sizes[sample.annotation.size] += 1
                self._check_sample(sample, split, index, facts, numbers)
                count_classes(sample, counts)
                first = by_id.setdefault(sample.sample_id, index)
                if first != index:
                    text = f"samples {first} and {index} are both called {sample.sample_id!r}"
                    self._report.add(Problem("duplicated_id", text, split, sample.sample_id, index))
            bar.update()
        self._add_facts(split, facts, by_id)
        self._add_about_split(found, source, facts if not space.is_class_agnostic else None, strangers)

    def _look_through(self, name: str, source: SampleSource, bar: tqdm[Any]) -> None:
        """Only the pictures of another data set, whose own faults are not asked for."""
        for index in range(source.num_samples or 0):
            for sample, _, _ in _samples(source, index):
                if sample is not None:
                    deque(self._pictures.add(sample, name, index), maxlen=0)
            bar.update()

    def _check_sample(
        self, sample: Sample, split: str, index: int, facts: JsonFacts | None, numbers: Sequence[int]
    ) -> None:
        faults: list[Iterator[Fault]] = [
            check_annotation(sample),
            check_tracks(sample),
            self._pictures.add(sample, split, index),
        ]
        if facts is not None:
            faults.append(facts.check(sample))
        for fault in (fault for some in faults for fault in some):
            frame = fault.frame if fault.frame is None or not numbers else numbers[fault.frame]
            self._report.add(Problem(fault.kind, fault.message, split, sample.sample_id, index, frame, fault.segment))

    def _facts(self, split: str, source: SampleSource) -> JsonFacts | None:
        try:
            return read_facts(source)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            self._report.add(Problem("unusable_sample", f"{getattr(source, 'name', split)}: {error}", split))
            return None

    def _add_facts(self, split: str, facts: JsonFacts | None, by_id: Mapping[str, int]) -> None:
        for sample_id, fault in [] if facts is None else facts.faults:
            self._report.add(Problem(fault.kind, fault.message, split, sample_id, by_id.get(sample_id)))

    def _add_about_split(
        self, found: SplitReport, source: SampleSource, facts: JsonFacts | None, strangers: set[int]
    ) -> None:
        problems: list[Problem] = [*classes.check_classes(found), *check_sizes(found)]
        if not found.label_space.is_class_agnostic and (self._has_own_classes or facts is not None):
            problems += classes.check_ids(found, strangers, facts)
        # Readers of other layouts take such a picture for an error, or their JSON lists all.
        if hasattr(source, "pictures_not_listed") and (strange := source.pictures_not_listed()):
            problems.append(Problem("picture_not_listed", f"{len(strange)}: {listed(strange)}", found.name))
        if source.num_samples != found.num_samples:
            text = f"the first {found.num_samples} of {source.num_samples or 'endlessly many'} samples"
            problems.append(Problem("few_samples_checked", text, found.name))
        for problem in problems:
            self._report.add(problem)


def _open_others(folders: Iterable[str | Path]) -> dict[str, SampleSource]:
    opened = {}
    for folder in folders:
        kind, names = choose_layout(folder, None, None)
        opened.update({f"{folder} {name}": open_layout(kind, folder, name) for name in names})
    return opened


def _length(source: SampleSource, limit: int | None) -> int:
    if source.num_samples is None:
        if limit is None:
            raise ValueError("the source is endless: say with limit how many samples to check")
        return limit
    return source.num_samples if limit is None else min(limit, source.num_samples)


def _samples(source: SampleSource, index: int) -> Iterator[tuple[Sample | None, Fault | None, Sequence[int]]]:
    """The sample, or what is wrong with it; of a video with bad frames what is wrong with each, then the others, and
    which these are.
    """
    try:
        yield source.sample(index), None, ()
    except Exception as error:  # noqa: BLE001 - whatever a reader stumbles over is a fault of the files, not the end
        bad, frames = _bad_frames(source, index)
        if not bad or (len(bad) == len(frames) > 1 and len({in_words(reason) for reason in bad.values()}) == 1):
            yield None, Fault(kind_of_error(error), in_words(error)), ()
            return
        for frame, reason in bad.items():
            yield None, Fault(kind_of_error(reason), in_words(reason), frame), ()
        good = [frame for frame in frames if frame not in bad]
        if good:
            try:
                yield source.clip(index, good), None, good  # type: ignore[attr-defined]
            except Exception as reason:  # noqa: BLE001 - as above
                yield None, Fault(kind_of_error(reason), in_words(reason)), ()


def _bad_frames(source: SampleSource, index: int) -> tuple[dict[int, Exception], tuple[int, ...]]:
    """Annotated frames of a video that cannot be read, with the reason; and all of them. None of what is no video."""
    if not hasattr(source, "clip") or not hasattr(source, "annotated_frames"):
        return {}, ()
    bad: dict[int, Exception] = {}
    try:
        frames = tuple(source.annotated_frames(index))
    except Exception:  # noqa: BLE001 - the error of the whole video says why
        return {}, ()
    for frame in frames:
        try:
            source.clip(index, [frame])
        except Exception as error:  # noqa: BLE001 - as above
            bad[frame] = error
    return bad, frames


def _is_about_ids(fault: Fault) -> bool:
    return fault.kind in ("category_not_listed", "id_without_class")


def _placed(fault: Fault, split: str, index: int) -> Problem:
    return Problem(fault.kind, fault.message, split, "", index, fault.frame, fault.segment)
