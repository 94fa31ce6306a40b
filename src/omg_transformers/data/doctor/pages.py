"""The report on disk: report.json for programs, report.md with pictures of the faults for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omg_transformers.data.doctor.kinds import KINDS, SEVERITIES
from omg_transformers.data.doctor.report import class_rows
from omg_transformers.data.doctor.sheet import Cell, cell_of_sample, draw_histogram, draw_sheet
from omg_transformers.formats.atomic_file import write_bytes, write_json, write_png

if TYPE_CHECKING:
    from pathlib import Path

    from omg_transformers.data.doctor.report import CheckReport, Problem, SplitReport

MAX_LISTED, MAX_SHOWN, MAX_CLASSES = 20, 6, 40
SIDE = 360
PICTURES = "pictures"


def write_report(report: CheckReport, folder: Path) -> Path:
    """Write report.json, report.md and pictures/*.png into a folder, which is made. Returns the path of report.md."""
    pictures = folder / PICTURES
    pictures.mkdir(parents=True, exist_ok=True)
    write_json(folder / "report.json", report.to_dict())
    lines = [f"# {report.title}", "", _summary(report), ""]
    for split in report.splits:
        lines += _about_split(split)
    if report.kinds:
        lines += ["## Faults", "", "| severity | number | kind | what |", "|---|---|---|---|"]
        lines += [
            f"| {KINDS[kind].severity} | {report.num_problems(kind)} | [{kind}](#{kind}) | {KINDS[kind].title} |"
            for kind in report.kinds
        ]
        lines.append("")
    for kind in report.kinds:
        lines += _about_kind(report, kind, pictures)
    for number, split in enumerate(report.splits):
        lines += _classes(split, pictures, number)
    return write_bytes(folder / "report.md", "\n".join(lines).encode())


def _summary(report: CheckReport) -> str:
    numbers = ", ".join(f"{report.num_problems(severity=severity)} {severity}s" for severity in SEVERITIES)
    return f"Found: {numbers}."


def _about_split(split: SplitReport) -> list[str]:
    counts = split.counts
    sizes = sorted(split.sizes, key=lambda size: size[0] * size[1])
    ends = dict.fromkeys(f"{width} x {height}" for height, width in (*sizes[:1], *sizes[-1:]))
    extent = f" of {' to '.join(ends)} pixels"
    return [
        f"- {split.name or 'all'}: {split.num_usable} of {split.num_samples} samples can be used, "
        f"{split.num_frames} frames{extent}; {sum(counts.segments) + counts.without} segments; label space "
        f"{split.label_space.name!r} of {len(split.label_space)}; void {counts.void / max(counts.total, 1):.1%}; "
        f"serves {', '.join(split.tasks) or 'no installed task'}",
        "",
    ]


def _about_kind(report: CheckReport, kind: str, pictures: Path) -> list[str]:
    about, problems = KINDS[kind], report.of_kind(kind)
    lines = [f"### {kind}", "", f"{about.severity.capitalize()}: {about.title}. {_sentence(about.advice)}", ""]
    lines += [f"- {_where(problem)}{_escaped(problem.message)}" for problem in problems[:MAX_LISTED]]
    more = report.num_problems(kind) - min(len(problems), MAX_LISTED)
    lines += [f"- and {more} more", ""] if more else [""]
    cells = _cells(report, problems)
    if cells:
        path = write_png(pictures / f"{kind}.png", draw_sheet(cells, columns=3))
        lines += [f"![{kind}]({PICTURES}/{path.name})", ""]
    return lines


def _cells(report: CheckReport, problems: list[Problem]) -> list[Cell]:
    """Pictures of the first faults that can be shown: where the sample cannot be read, there is none."""
    cells: list[Cell] = []
    for problem in problems:
        source = report.sources.get(problem.split)
        if source is None or problem.index is None or len(cells) == MAX_SHOWN:
            continue
        try:
            sample = source.sample(problem.index)
            caption = f"{problem.sample_id} {problem.message}"
            cells.append(cell_of_sample(sample, caption, side=SIDE, frames=_frames(problem), segment=problem.segment))
        except Exception:  # noqa: BLE001 - the fault itself may be that the sample cannot be read
            continue
    return cells


def _frames(problem: Problem) -> list[int]:
    """What to show: of tracks the frame before as well."""
    if problem.frame is None:
        return [] if problem.segment is None else [0]
    return [problem.frame - 1, problem.frame] if problem.kind.startswith("track_") else [problem.frame]


def _classes(split: SplitReport, pictures: Path, number: int) -> list[str]:
    if split.label_space.is_class_agnostic or not any(split.counts.segments):
        return []
    path = write_png(pictures / f"classes_{number}.png", draw_histogram(split))
    lines = [f"## Classes of {split.name or 'all samples'}", "", f"![histogram]({PICTURES}/{path.name})", ""]
    lines += ["| class | id | kind | pixels | segments | samples |", "|---|---|---|---|---|---|"]
    rows = [row for row in class_rows(split) if row["segments"]]
    lines += [
        f"| {_escaped(row['class'])} | {row['id']} | {'thing' if row['is_thing'] else 'stuff'} | {row['pixels']} | "
        f"{row['segments']} | {row['samples']} |"
        for row in rows[:MAX_CLASSES]
    ]
    return [*lines, "", f"report.json has all {len(split.label_space)} classes." if len(rows) > MAX_CLASSES else "", ""]


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}{'' if text.endswith('?') else '.'}"


def _where(problem: Problem) -> str:
    parts = [part for part in (problem.split, problem.sample_id) if part]
    if problem.frame is not None:
        parts.append(f"frame {problem.frame}")
    return f"`{' '.join(parts)}`: " if parts else ""


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
