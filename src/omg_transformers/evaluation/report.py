"""Figures for people and programs: a JSON file, a table by class, the same as text."""

from __future__ import annotations

import csv
import io
import math
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

from omg_transformers.formats import write_bytes, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

RESULTS = "results.json"
CLASS_TABLE = "per_class.csv"
PACKAGES = ("omg-transformers", "torch", "transformers", "numpy", "pycocotools")
# More classes than this fill the screen; the file has all of them.
MAX_PRINTED = 30


@dataclass(frozen=True, slots=True)
class Report:
    """What was found. figures: the main one first, each in [0, 1] or NaN where undefined.

    class_names, class_columns: the table by class, K values per column. notes: one sentence each on what was skipped or
    looked odd. details: anything else that is JSON (settings, seconds, figures of samples).
    """

    task: str
    figures: Mapping[str, float]
    num_samples: int
    class_names: Sequence[str] = ()
    class_columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    def rows(self) -> list[dict[str, Any]]:
        """The table by class, one row per class: `class`, then the columns; None where undefined."""
        columns = {name: np.asarray(values) for name, values in self.class_columns.items()}
        for name, values in columns.items():
            if len(values) != len(self.class_names):
                raise ValueError(f"column {name!r} has {len(values)} values for {len(self.class_names)} classes")
        return [
            {"class": title, **{name: without_nan(values[index].item()) for name, values in columns.items()}}
            for index, title in enumerate(self.class_names)
        ]


class Stopwatch:
    """Wall time since it was made, and the process's greatest memory."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def details(self) -> dict[str, Any]:
        """`seconds`, `peak_memory_mb` (of the process, and `peak_gpu_memory_mb` where there is a GPU)."""
        found: dict[str, Any] = {
            "seconds": round(time.perf_counter() - self._start, 3),
            "peak_memory_mb": _peak_memory_mb(),
        }
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            found["peak_gpu_memory_mb"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
        return found


def _peak_memory_mb() -> float | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    # Linux counts kilobytes, macOS bytes.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)


def without_nan(content: Any) -> Any:
    """The same JSON with null for NaN, which is no JSON."""
    if isinstance(content, Mapping):
        return {key: without_nan(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [without_nan(value) for value in content]
    return None if isinstance(content, float) and math.isnan(content) else content


def write_report(report: Report, folder: Path) -> None:
    """Write results.json, and per_class.csv where there are classes. The folder is made if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "task": report.task,
        "figures": dict(report.figures),
        "num_samples": report.num_samples,
        "notes": list(report.notes),
        "command": sys.argv,
        "versions": _versions(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **report.details,
    }
    write_json(folder / RESULTS, without_nan(content))
    if report.class_columns:
        text = io.StringIO()
        rows = report.rows()
        writer = csv.DictWriter(text, ["class", *report.class_columns])
        writer.writeheader()
        writer.writerows(rows)
        write_bytes(folder / CLASS_TABLE, text.getvalue().encode())


def format_report(report: Report) -> str:
    """The figures, the notes and the classes that occur (at most 30) as text; shares in percent, NaN as "-"."""
    width = max((len(name) for name in report.figures), default=0)
    lines = [f"{report.task}, {report.num_samples} samples"]
    lines += [f"  {name:<{width}}  {_percent(value):>7}" for name, value in report.figures.items()]
    if report.class_columns:
        lines += ["", *_class_lines(report)]
    lines += [f"note: {note}" for note in report.notes]
    return "\n".join(lines)


def _class_lines(report: Report) -> list[str]:
    columns = list(report.class_columns)
    shown = [row for row in report.rows() if row[columns[0]] is not None]
    title_width = max((len(row["class"]) for row in shown[:MAX_PRINTED]), default=5)
    widths = [max(len(name), 7) for name in columns]
    lines = [" ".join([f"{'class':<{title_width}}", *(f"{n:>{w}}" for n, w in zip(columns, widths, strict=True))])]
    for row in shown[:MAX_PRINTED]:
        cells = (f"{_cell(row[name]):>{w}}" for name, w in zip(columns, widths, strict=True))
        lines.append(" ".join([f"{row['class']:<{title_width}}", *cells]))
    if len(shown) > MAX_PRINTED:
        lines.append(f"... {len(shown) - MAX_PRINTED} more classes: see {CLASS_TABLE}")
    return lines


def _cell(value: float | None) -> str:
    return str(value) if isinstance(value, int) else _percent(math.nan if value is None else value)


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f}"


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
