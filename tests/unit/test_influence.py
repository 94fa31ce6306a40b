"""The study of how tasks influence each other."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from omg_transformers.training.influence import Influence, final_figures, runs_of
from omg_transformers.visualization.difference_map import draw_difference_map

TASKS = ("semantic", "instance", "interactive")


def found():
    """Each task has 40 alone, 50 with all; leaving out `instance` costs the others 10 points, all else nothing."""
    figures = {run: dict.fromkeys(TASKS, ("x/main", 0.5)) for run in runs_of(TASKS)}
    for task in TASKS:
        figures[f"only_{task}"][task] = ("x/main", 0.4)
    figures["without_instance"] = dict.fromkeys(TASKS, ("x/main", 0.4))
    return figures


def test_every_task_is_trained_alone_with_all_and_left_out_once():
    runs = runs_of(TASKS)
    assert runs["all"] == TASKS
    assert runs["only_instance"] == ("instance",)
    assert runs["without_instance"] == ("semantic", "interactive")
    assert len(runs) == 7


def test_of_two_tasks_leaving_one_out_is_the_other_alone():
    assert set(runs_of(TASKS[:2])) == {"only_semantic", "only_instance", "all"}


@pytest.mark.parametrize("tasks", [["semantic"], ["semantic", "semantic"]])
def test_fewer_than_two_tasks_are_refused(tasks):
    with pytest.raises(ValueError, match="two or more different tasks"):
        runs_of(tasks)


def test_effects_are_points_gained_by_training_a_task_along():
    effects = Influence.of_runs(TASKS, found()).effects()
    expected = np.array([[np.nan, 10, 0, 10], [0, np.nan, 0, 10], [0, 10, np.nan, 10]])
    np.testing.assert_allclose(effects, expected, atol=1e-9)


def test_a_task_that_is_not_measured_is_named():
    figures = found()
    del figures["all"]["instance"]
    with pytest.raises(ValueError, match="run all has no figure of instance"):
        Influence.of_runs(TASKS, figures)


def test_an_undefined_figure_is_missing():
    figures = found()
    figures["all"]["instance"] = ("x/main", float("nan"))
    with pytest.raises(ValueError, match="run all has no figure of instance"):
        Influence.of_runs(TASKS, figures)


def test_the_table_holds_every_value(tmp_path: Path):
    Influence.of_runs(TASKS, found()).write(tmp_path, about="Three runs.")
    rows = list(csv.DictReader((tmp_path / "influence.csv").open()))
    assert [row["task"] for row in rows] == list(TASKS)
    assert rows[0]["effect of instance"] == "10.000" and rows[0]["effect of semantic"] == ""
    assert "gains most from instance (+10.0)" in (tmp_path / "influence.md").read_text()
    assert (tmp_path / "influence.png").stat().st_size > 0


def test_only_the_figures_of_the_last_step_count(tmp_path: Path):
    lines = [
        {"step": 5, "held_out": "a", "semantic/miou": 0.1},
        {"step": 9, "held_out": "a", "semantic/miou": 0.2, "semantic/pixel_accuracy": 0.9},
        {"step": 9, "held_out": "b", "semantic/miou": 0.4},
    ]
    (tmp_path / "evaluations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    name, value = final_figures(tmp_path, 9)["semantic"]
    assert name == "semantic/miou" and value == pytest.approx(0.3)
    assert final_figures(tmp_path, 8) == {}


def test_gains_are_blue_and_losses_red():
    image = np.asarray(draw_difference_map(np.array([[5.0, -5.0]]), ["a"], ["b", "c"]))
    is_blue = (image[..., 2].astype(int) - image[..., 0]) > 80
    is_red = (image[..., 0].astype(int) - image[..., 2]) > 80
    assert is_blue.any() and is_red.any()
    assert np.nonzero(is_blue)[1].max() < np.nonzero(is_red)[1].min()
