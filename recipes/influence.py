"""Measure how tasks influence each other: train each alone, all together, and all but one, for equal budgets.

    python recipes/influence.py --config recipes/influence_study/influence.yaml --output runs/influence

Every run is `recipes/cotrain.py` with another `mix`, the same seed and the same number of steps. Runs that are done are
not repeated and one that was stopped goes on, so the same command finishes a study that was interrupted. The output
folder gets `influence.csv`, a heat map `influence.png` and a page of text `influence.md`.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from omg_transformers.settings import load_settings
from omg_transformers.training.checkpoints import newest_checkpoint
from omg_transformers.training.command_line import refusing_mistakes
from omg_transformers.training.influence import Influence, final_figures, runs_of, undefined_tasks

COTRAIN = Path(__file__).with_name("cotrain.py")


@dataclass(frozen=True)
class Settings:
    """base: settings of cotrain.py that all runs share; its `evaluation` needs an entry for every task.

    tasks: what is trained and measured. max_steps: of every run. changes: key=value words for all runs.
    launcher: the command before `recipes/cotrain.py`; empty: this Python, one process. at_once: runs side by side.
    """

    output: Path
    base: Path
    tasks: list[str]
    max_steps: int
    changes: list[str] = field(default_factory=list)
    launcher: str = ""
    at_once: int = 1

    def __post_init__(self) -> None:
        runs_of(self.tasks)
        if self.max_steps < 1:
            raise ValueError(f"max_steps is {self.max_steps}: expected at least 1")
        if self.at_once < 1:
            raise ValueError(f"at_once is {self.at_once}: expected at least 1 run at a time")
        if not self.base.is_file():
            raise ValueError(f"base is {self.base}: there is no such file; give a YAML of recipes/cotrain.py")


def main() -> None:
    """All runs, then the result."""
    with refusing_mistakes():
        settings = parse_arguments()
    runs = runs_of(settings.tasks)
    pool = ThreadPoolExecutor(settings.at_once)
    waiting = [pool.submit(run_training, settings, name, tasks) for name, tasks in runs.items()]
    try:
        for done in tqdm(as_completed(waiting), total=len(waiting), unit="run"):
            done.result()
    finally:
        pool.shutdown(cancel_futures=True)
    with refusing_mistakes():
        found = {name: final_figures(settings.output / name, settings.max_steps) for name in runs}
        influence = Influence.of_runs(settings.tasks, found)
        influence.write(settings.output, about=describe(settings))
    print(f"the result is in {settings.output}: influence.md, influence.png, influence.csv")


def parse_arguments() -> Settings:
    """Settings of the file and the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="YAML file with settings")
    parser.add_argument("--output", type=Path, help="folder of the study")
    parser.add_argument("changes", nargs="*", metavar="key=value", help="settings that differ from the file")
    arguments = parser.parse_intermixed_args()
    words = [*arguments.changes, *([] if arguments.output is None else [f"output={arguments.output}"])]
    return load_settings(Settings, arguments.config, words)


def run_training(settings: Settings, name: str, tasks: tuple[str, ...]) -> None:
    """One run of cotrain.py, unless it is done. Its output goes to `<name>.log`; a failure ends the study.

    So does a figure that is not defined: no other run would have it.
    """
    folder = settings.output / name
    if final_figures(folder, settings.max_steps):
        return
    folder.mkdir(parents=True, exist_ok=True)
    mix = ", ".join(f"{task}: 1" for task in tasks)
    words = [f"mix={{{mix}}}", f"evaluate_every={settings.max_steps}", *settings.changes]
    words += ["--resume"] if newest_checkpoint(folder / "checkpoints") is not None else []
    start = shlex.split(settings.launcher) or [sys.executable]
    options = ["--config", str(settings.base), "--output", str(folder), "--max-steps", str(settings.max_steps)]
    log = settings.output / f"{name}.log"
    with log.open("a", encoding="utf-8") as stream:
        done = subprocess.run([*start, str(COTRAIN), *options, *words], stdout=stream, stderr=stream, check=False)
    if done.returncode:
        raise SystemExit(f"run {name} ended with status {done.returncode}: see {log}; the same command goes on")
    if missing := undefined_tasks(final_figures(folder, settings.max_steps), settings.tasks):
        raise SystemExit(
            f"run {name} has no figure of {', '.join(missing)}: give each task an entry in the `evaluation` of "
            f"{settings.base} with enough samples, and for videos long enough ones; then start in a new output"
        )


def describe(settings: Settings) -> str:
    """What was run, for the page."""
    changes = f", changed by `{' '.join(settings.changes)}`" if settings.changes else ""
    return (
        f"{len(runs_of(settings.tasks))} runs of `recipes/cotrain.py` with `{settings.base.name}`{changes}, "
        f"{settings.max_steps} steps each, one seed: each task alone, all together with equal shares, and all but one. "
        "A run that trains several tasks sees fewer batches of each. All figures in percent, on held-out samples."
    )


if __name__ == "__main__":
    main()
