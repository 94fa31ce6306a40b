"""How tasks help and hurt each other: the runs of the study, its matrix, and its page."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from omg_transformers.formats.atomic_file import write_bytes, write_png
from omg_transformers.training.journal import EVALUATIONS, read_journal
from omg_transformers.visualization.difference_map import draw_difference_map

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

ALL, OTHERS = "all", "all others"


def runs_of(tasks: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Name of each run -> the tasks that it trains: each alone, all, all but one. ValueError for fewer than two."""
    if len(set(tasks)) != len(tasks) or len(tasks) < 2:
        raise ValueError(f"tasks is {list(tasks)}: expected two or more different tasks")
    runs = {f"only_{task}": (task,) for task in tasks} | {ALL: tuple(tasks)}
    if len(tasks) > 2:
        runs |= {f"without_{task}": tuple(other for other in tasks if other != task) for task in tasks}
    return runs


def final_figures(folder: Path, step: int) -> dict[str, tuple[str, float]]:
    """Per task the name and value of its main figure after `step`, {} when that evaluation is not there.

    A task judged on several held-out sources has the mean over them.
    """
    found: dict[str, list[tuple[str, float]]] = {}
    for line in read_journal(folder / EVALUATIONS):
        names = [name for name in line if "/" in name]
        if line["step"] == step and names:
            value = line[names[0]]
            found.setdefault(names[0].partition("/")[0], []).append((names[0], math.nan if value is None else value))
    return {task: (pairs[0][0], float(np.mean([value for _, value in pairs]))) for task, pairs in found.items()}


def undefined_tasks(figures: Mapping[str, tuple[str, float]], tasks: Sequence[str]) -> list[str]:
    """Tasks without a figure, or whose figure is NaN: what they are judged on does not suffice."""
    return [task for task in tasks if task not in figures or math.isnan(figures[task][1])]


@dataclass(frozen=True, slots=True)
class Influence:
    """The result. figures: per task the name of its main figure. All values in percent.

    alone, together: (N,), each task trained alone and with all. without: (N, N), row: the task that is measured,
    column: the one that was left out of training; NaN where they are the same.
    """

    tasks: tuple[str, ...]
    figures: tuple[str, ...]
    alone: NDArray[np.float64]
    together: NDArray[np.float64]
    without: NDArray[np.float64]

    @classmethod
    def of_runs(cls, tasks: Sequence[str], found: Mapping[str, Mapping[str, tuple[str, float]]]) -> Influence:
        """found: per run of `runs_of` what `final_figures` gave. ValueError for a task that a run does not measure."""
        for run, figures in found.items():
            missing = undefined_tasks(figures, tasks)
            if missing:
                raise ValueError(
                    f"run {run} has no figure of {', '.join(missing)}: give each task an entry in `evaluation` with "
                    "enough samples, and for videos long enough ones"
                )

        def percent(run: str, task: str) -> float:
            return 100 * found[run][task][1]

        without = np.full((len(tasks), len(tasks)), np.nan)
        for row, task in enumerate(tasks):
            for column, left_out in enumerate(tasks):
                if row != column:
                    run = f"without_{left_out}" if len(tasks) > 2 else f"only_{task}"
                    without[row, column] = percent(run, task)
        return cls(
            tuple(tasks),
            tuple(found[ALL][task][0] for task in tasks),
            np.array([percent(f"only_{task}", task) for task in tasks]),
            np.array([percent(ALL, task) for task in tasks]),
            without,
        )

    def effects(self) -> NDArray[np.float64]:
        """(N, N + 1) points. Column j < N: what training task j with the others did for the task of the row.

        The last column: what all others together did, against training alone. Above 0: it helped.
        """
        return np.concatenate([self.together[:, None] - self.without, (self.together - self.alone)[:, None]], axis=1)

    def write(self, folder: Path, *, about: str) -> None:
        """`influence.csv`, `influence.png` and `influence.md`. about: a paragraph on what was run."""
        effects = self.effects()
        columns = [*self.tasks, OTHERS]
        write_bytes(folder / "influence.csv", self._table(effects).encode())
        title = "Points of the row's task that training the column's task along gains (blue) or costs (red)"
        write_png(folder / "influence.png", draw_difference_map(effects, self.tasks, columns, title=title))
        write_bytes(folder / "influence.md", self._page(effects, about).encode())

    def _table(self, effects: NDArray[np.float64]) -> str:
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        head = [f"without {task}" for task in self.tasks] + [f"effect of {task}" for task in [*self.tasks, OTHERS]]
        writer.writerow(["task", "figure", "alone", "together", *head])
        for row, task in enumerate(self.tasks):
            values = [self.alone[row], self.together[row], *self.without[row], *effects[row]]
            cells = ["" if math.isnan(value) else f"{value:.3f}" for value in values]
            writer.writerow([task, self.figures[row], *cells])
        return stream.getvalue()

    def _page(self, effects: NDArray[np.float64], about: str) -> str:
        lines = ["# How the tasks influence each other", "", about, ""]
        lines += ["| task | figure | alone | together | difference | relative |", "|---|---|---|---|---|---|"]
        for row, task in enumerate(self.tasks):
            gain = self.together[row] - self.alone[row]
            share = "" if not self.alone[row] else f"{gain / self.alone[row]:+.0%}"
            name = self.figures[row].partition("/")[2]
            lines.append(
                f"| {task} | {name} | {self.alone[row]:.1f} | {self.together[row]:.1f} | {gain:+.1f} | {share} |"
            )
        mean_alone, mean_together = float(self.alone.mean()), float(self.together.mean())
        share = f" ({(mean_together - mean_alone) / mean_alone:+.1%})" if mean_alone else ""
        lines += ["", f"Mean over tasks: alone {mean_alone:.1f}, one model for all {mean_together:.1f}{share}.", ""]
        lines += [_sentence(task, self.tasks, effects[row]) for row, task in enumerate(self.tasks)]
        lines += ["", "![influence](influence.png)", ""]
        return "\n".join(lines)


def _sentence(task: str, tasks: Sequence[str], effects: NDArray[np.float64]) -> str:
    others = [(float(effects[column]), other) for column, other in enumerate(tasks) if other != task]
    best, worst = max(others), min(others)
    return f"- **{task}** gains most from {best[1]} ({best[0]:+.1f}) and least from {worst[1]} ({worst[0]:+.1f})."
