"""Reports of several models on the same samples in one table."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from omg_transformers.evaluation.report import without_nan
from omg_transformers.formats import write_bytes, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from omg_transformers.evaluation.report import Report

TABLE = "comparison.csv"
RESULTS = "comparison.json"
DRAWS = 2000


@dataclass(frozen=True, slots=True)
class Difference:
    """How the main figure of single samples differs from the first model's, over samples that have it in both.

    mean, low, high: the mean difference and its 95 % bootstrap interval, NaN without common samples. largest: the
    samples that differ most, (id, difference), gains and losses.
    """

    name: str
    mean: float
    low: float
    high: float
    num_better: int
    num_worse: int
    num_common: int
    largest: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Reports of the same task on the same samples, in the order they were given."""

    names: tuple[str, ...]
    reports: tuple[Report, ...]
    differences: tuple[Difference, ...]

    def rows(self) -> list[tuple[str, tuple[float | None, ...]]]:
        """By figure, one value per model; then parameters in millions and seconds per sample."""
        figures = list(dict.fromkeys(name for report in self.reports for name in report.figures))
        rows = [(name, tuple(report.figures.get(name) for report in self.reports)) for name in figures]
        millions = tuple(report.details["num_parameters"] / 1e6 for report in self.reports)
        seconds = tuple(report.details["seconds_per_sample"] for report in self.reports)
        return [*rows, ("parameters (millions)", millions), ("seconds per sample", seconds)]


def compare_reports(names: Sequence[str], reports: Sequence[Report]) -> Comparison:
    """Compare reports of `evaluate_model`. ValueError for other tasks, classes or samples than the first one's."""
    first = reports[0]
    for name, report in zip(names, reports, strict=True):
        if report.task != first.task or list(report.class_names) != list(first.class_names):
            raise ValueError(f"{name} was judged on other classes or another task than {names[0]}: they do not compare")
    figures = [_by_sample(report) for report in reports]
    differences = (_differ(name, figures[0], other) for name, other in zip(names[1:], figures[1:], strict=True))
    return Comparison(tuple(names), tuple(reports), tuple(differences))


def write_comparison(comparison: Comparison, folder: Path) -> None:
    """Write comparison.csv and comparison.json."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["figure", *comparison.names])
    writer.writerows([name, *("" if _is_missing(value) else value for value in row)] for name, row in comparison.rows())
    write_bytes(folder / TABLE, text.getvalue().encode())
    content = {
        "models": list(comparison.names),
        "table": dict(comparison.rows()),
        "differences": [
            {name: getattr(difference, name) for name in Difference.__dataclass_fields__}
            for difference in comparison.differences
        ],
    }
    write_json(folder / RESULTS, without_nan(content))


def format_comparison(comparison: Comparison) -> str:
    """The table as text; figures in percent."""
    rows = comparison.rows()
    width = max(len(name) for name, _ in rows)
    widths = [max(len(name), 8) for name in comparison.names]
    report = comparison.reports[0]
    heading = f"{report.task}, {report.num_samples} samples"
    lines = [heading, " ".join([" " * width, *(f"{n:>{w}}" for n, w in zip(comparison.names, widths, strict=True))])]
    for number, (name, values) in enumerate(rows):
        factor, digits = (100, 2) if number < len(rows) - 2 else (1, 3)
        cells = ("-" if value is None or math.isnan(value) else f"{factor * value:.{digits}f}" for value in values)
        lines.append(" ".join([f"{name:<{width}}", *(f"{c:>{w}}" for c, w in zip(cells, widths, strict=True))]))
    lines += [_sentence(difference, comparison.names[0]) for difference in comparison.differences]
    for name, each in zip(comparison.names, comparison.reports, strict=True):
        lines += [f"note: {name}: {note}" for note in each.notes]
    return "\n".join(lines)


def _sentence(difference: Difference, first: str) -> str:
    if not difference.num_common:
        return f"{difference.name} and {first} have no sample with a figure in common"
    mean, low, high = (100 * value for value in (difference.mean, difference.low, difference.high))
    return (
        f"{difference.name} minus {first}, sample by sample: {mean:+.2f} (95 %: {low:+.2f} to {high:+.2f}), better on "
        f"{difference.num_better}, worse on {difference.num_worse} of {difference.num_common}"
    )


def _by_sample(report: Report) -> dict[str, float]:
    return {row["id"]: row["figure"] for row in report.details["samples"] if row["figure"] is not None}


def _differ(name: str, first: dict[str, float], other: dict[str, float]) -> Difference:
    common = [sample for sample in first if sample in other]
    if not common:
        return Difference(name, math.nan, math.nan, math.nan, 0, 0, 0, ())
    values = np.array([other[sample] - first[sample] for sample in common])
    draws = np.random.default_rng(0).integers(0, len(values), (DRAWS, len(values)))
    low, high = np.quantile(values[draws].mean(1), [0.025, 0.975])
    order = np.argsort(-np.abs(values), kind="stable")[:10]
    largest = tuple((common[index], float(values[index])) for index in order if values[index])
    return Difference(
        name,
        float(values.mean()),
        float(low),
        float(high),
        int((values > 0).sum()),
        int((values < 0).sum()),
        len(common),
        largest,
    )


def _is_missing(value: float | None) -> bool:
    return value is None or math.isnan(value)
