"""What the data doctor found: faults with examples, and how often each class occurs."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from omg_transformers.data.doctor.kinds import KINDS, SEVERITIES, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from omg_transformers.data.sources import SampleSource
    from omg_transformers.labels import LabelSpace

# More of one kind in one split are only counted.
MAX_KEPT = 100


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault. index: number of the sample in its split, None: of several. frame, segment: its place there."""

    kind: str
    message: str
    split: str = ""
    sample_id: str = ""
    index: int | None = None
    frame: int | None = None
    segment: int | None = None

    @property
    def severity(self) -> Severity:
        """How grave it is."""
        return KINDS[self.kind].severity


@dataclass(slots=True)
class ClassCounts:
    """How often each class of one split occurs, K values each. void, total: pixels. without: segments of no class."""

    pixels: list[int]
    segments: list[int]
    samples: list[int]
    void: int = 0
    total: int = 0
    without: int = 0

    @classmethod
    def empty(cls, num_classes: int) -> ClassCounts:
        """Nothing counted yet."""
        return cls([0] * num_classes, [0] * num_classes, [0] * num_classes)


@dataclass(slots=True)
class SplitReport:
    """One split that was walked through. num_usable: of its `num_samples`, those that could be read.

    sizes: samples by (height, width).
    """

    name: str
    label_space: LabelSpace
    tasks: tuple[str, ...]
    num_samples: int
    num_usable: int
    num_frames: int
    counts: ClassCounts
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)


@dataclass(slots=True)
class CheckReport:
    """Everything that was found. `problems` holds the first 100 of each kind and split, `num_problems` counts all.

    sources: what was checked, by split, for pictures of the faults.
    """

    title: str
    splits: list[SplitReport] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    sources: dict[str, SampleSource] = field(default_factory=dict, repr=False)
    _counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, problem: Problem) -> None:
        """Count a fault, and keep it when there are few of its kind."""
        key = (problem.kind, problem.split)
        self._counts[key] += 1
        if self._counts[key] <= MAX_KEPT:
            self.problems.append(problem)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that were found, the gravest first."""
        found = {kind for kind, _ in self._counts}
        return tuple(
            kind for severity in SEVERITIES for kind in KINDS if kind in found and KINDS[kind].severity == severity
        )

    def num_problems(self, kind: str | None = None, *, severity: Severity | None = None) -> int:
        """How many there are: in all, of one kind, of one severity."""
        return sum(
            count
            for (name, _), count in self._counts.items()
            if kind in (None, name) and severity in (None, KINDS[name].severity)
        )

    def of_kind(self, kind: str) -> list[Problem]:
        """The faults of one kind that were kept."""
        return [problem for problem in self.problems if problem.kind == kind]

    def is_sound(self, *, strict: bool = False) -> bool:
        """Whether there is no error; strict: no warning either."""
        return not self.num_problems(severity="error") and not (strict and self.num_problems(severity="warning"))

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form."""
        return {
            "title": self.title,
            "is_sound": self.is_sound(),
            "num_problems": {severity: self.num_problems(severity=severity) for severity in SEVERITIES},
            "splits": [_split_to_dict(split) for split in self.splits],
            "kinds": [
                {
                    "kind": kind,
                    "severity": KINDS[kind].severity,
                    "title": KINDS[kind].title,
                    "advice": KINDS[kind].advice,
                    "num_problems": self.num_problems(kind),
                    "by_split": {split: count for (name, split), count in self._counts.items() if name == kind},
                    "problems": [asdict(problem) for problem in self.of_kind(kind)],
                }
                for kind in self.kinds
            ],
        }


def _split_to_dict(split: SplitReport) -> dict[str, Any]:
    counts = split.counts
    return {
        "name": split.name,
        "label_space": split.label_space.name,
        "tasks": list(split.tasks),
        "num_samples": split.num_samples,
        "num_usable": split.num_usable,
        "num_frames": split.num_frames,
        "pixels": counts.total,
        "void_pixels": counts.void,
        "segments_without_class": counts.without,
        "classes": list(class_rows(split)),
    }


def class_rows(split: SplitReport) -> Iterator[dict[str, Any]]:
    """The classes of a split with what was counted, the most pixels first; those that never occur come last."""
    counts = split.counts
    order = sorted(range(len(split.label_space)), key=lambda label: (-counts.pixels[label], label))
    for label in order:
        entry = split.label_space.classes[label]
        yield {
            "class": entry.name,
            "id": entry.dataset_id,
            "is_thing": entry.is_thing,
            "pixels": counts.pixels[label],
            "segments": counts.segments[label],
            "samples": counts.samples[label],
        }


def format_report(report: CheckReport, *, num_examples: int = 2) -> str:
    """The report as text for a terminal: one line per split, then a short table of the faults with first examples."""
    lines = [report.title]
    for split in report.splits:
        share = split.counts.void / max(split.counts.total, 1)
        used = sum(count > 0 for count in split.counts.segments)
        classes = f"{used} of {len(split.label_space)} classes occur"
        clips = "" if split.num_frames == split.num_usable else f", {split.num_frames} frames"
        lines.append(
            f"  {split.name}: {split.num_usable} of {split.num_samples} samples can be used{clips}, "
            f"{sum(split.counts.segments) + split.counts.without} segments, "
            f"{'no classes' if split.label_space.is_class_agnostic else classes}, void {share:.1%}"
        )
    width = max((len(kind) for kind in report.kinds), default=0)
    for kind in report.kinds:
        about = KINDS[kind]
        lines.append(f"{about.severity:8}{report.num_problems(kind):>7}  {kind:{width}}  {about.title}: {about.advice}")
        lines += [f"{'':17}{_where(problem)}{problem.message}" for problem in report.of_kind(kind)[:num_examples]]
    numbers = [
        f"{report.num_problems(severity=severity)} {severity}{'s' * (report.num_problems(severity=severity) != 1)}"
        for severity in SEVERITIES
        if report.num_problems(severity=severity)
    ]
    lines.append(", ".join(numbers) if numbers else "nothing was found: this looks sound")
    return "\n".join(lines)


def _where(problem: Problem) -> str:
    parts = [part for part in (problem.split, problem.sample_id) if part]
    if problem.frame is not None:
        parts.append(f"frame {problem.frame}")
    return f"[{' '.join(parts)}] " if parts else ""
