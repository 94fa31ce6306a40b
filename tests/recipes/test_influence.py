"""The study of how tasks influence each other, as its command."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes" / "influence.py"


def study(tmp_path, **changes):
    settings = {
        "output": str(tmp_path / "study"),
        "base": str(ROOT / "recipes" / "configs" / "tiny_all_tasks.yaml"),
        "tasks": ["semantic", "interactive"],
        "max_steps": 1,
        "changes": ["tracker=null", "ema_decay=null"],
        **changes,
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(settings))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, str(RECIPE), "--config", str(tmp_path / "study.yaml")]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_runs_side_by_side_give_a_row_per_task_and_are_not_repeated(tmp_path):
    done = study(tmp_path, at_once=2)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((tmp_path / "study" / "influence.csv").open()))
    assert [row["task"] for row in rows] == ["semantic", "interactive"]
    assert all(row["effect of all others"] for row in rows)
    assert (tmp_path / "study" / "influence.png").stat().st_size > 1000
    logs = {path.name: path.read_text() for path in (tmp_path / "study").glob("*.log")}
    assert set(logs) == {"only_semantic.log", "only_interactive.log", "all.log"}
    assert study(tmp_path).returncode == 0
    assert {path.name: path.read_text() for path in (tmp_path / "study").glob("*.log")} == logs


@pytest.mark.slow
def test_a_run_that_fails_ends_the_study_and_names_its_log(tmp_path):
    done = study(tmp_path, changes=["batch_size=0"])
    assert done.returncode == 1
    assert "run only_semantic ended with status 1: see" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "study" / "all.log").exists()


def test_no_run_at_a_time_is_refused(tmp_path):
    done = study(tmp_path, at_once=0)
    assert done.returncode == 1
    assert "at_once is 0: expected at least 1 run at a time" in done.stderr
