"""Runs recipes inside this process, or as a user would: in processes of their own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes" / "cotrain.py"
TINY = ROOT / "recipes" / "configs" / "tiny.yaml"


@pytest.fixture
def run_recipe(monkeypatch):
    """Call the recipe's `main` here, with these words on its command line."""
    from accelerate.state import AcceleratorState, GradientState, PartialState

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")

    def run(*words) -> None:
        spec = importlib.util.spec_from_file_location("cotrain_recipe", RECIPE)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "cotrain_recipe", module)
        spec.loader.exec_module(module)
        monkeypatch.setattr(sys, "argv", [str(RECIPE), "--config", str(TINY), *map(str, words)])
        for state in (AcceleratorState, GradientState, PartialState):
            state._reset_state()
        module.main()

    yield run
    torch.set_num_threads(threads)


@pytest.fixture
def launch():
    """Start the recipe in processes of its own and return what it printed; a failure shows it."""

    def start(*words, command=(sys.executable,), **variables) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
        return subprocess.run(
            [*command, str(RECIPE), "--config", str(TINY), *map(str, words)],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return start
