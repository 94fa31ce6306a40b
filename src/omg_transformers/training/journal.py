"""The log of a training run: one JSON object per line, and what is needed to repeat the run."""

from __future__ import annotations

import json
import math
import platform
import subprocess
import time
from contextlib import contextmanager
from importlib import metadata
from typing import TYPE_CHECKING, Any

import torch
import yaml
from torch import distributed

from omg_transformers.formats.atomic_file import write_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

METRICS, TIMING, EVALUATIONS, RECORD = "metrics.jsonl", "timing.jsonl", "evaluations.jsonl", "run.yaml"
# A share of the time that is worth another process for loading.
_LONG_WAIT = 0.2
_PACKAGES = ("omg-transformers", "torch", "torchvision", "transformers", "accelerate", "datasets", "timm", "numpy")


class Journal:
    """A run's folder. What a resumed run writes again, it writes again the same; times have a file of their own.

    `run.yaml` says how to repeat the run. `metrics.jsonl` has one JSON object per optimiser step: `step`, `loss`, the
    losses of each task, `grad_norm`, `learning_rate`. `evaluations.jsonl`: figures on held-out samples.
    `timing.jsonl`: seconds and samples per second of each step, and the share of it spent waiting for data.
    record: all that the run depends on. from_step: on resume, lines of later steps are dropped, as they come again.
    is_silent: write nothing; for all processes but one.
    changes: lines about settings that differ from those of the steps before `from_step`.
    """

    def __init__(self, folder: Path, record: Mapping[str, Any], *, from_step: int = 0, is_silent: bool = False) -> None:
        self.folder, self.is_silent = folder, is_silent
        self.changes: list[str] = []
        self._pending: list[tuple[str, str]] = []
        if is_silent:
            return
        if from_step:
            self.changes = _changed_settings(folder / RECORD, record.get("settings", {}))
        folder.mkdir(parents=True, exist_ok=True)
        for name in (METRICS, TIMING, EVALUATIONS):
            kept = [line for line in _lines(folder / name) if _step(line) <= from_step]
            if kept or (folder / name).exists():
                write_bytes(folder / name, "".join(kept).encode())
        write_bytes(folder / RECORD, yaml.safe_dump(dict(record), sort_keys=False).encode())

    def add_step(self, step: int, metrics: Mapping[str, Any], timing: Mapping[str, Any]) -> None:
        """One line of metrics and one of times; they reach the files with the next `flush`."""
        self._add(METRICS, step, metrics)
        self._add(TIMING, step, timing)

    def add_evaluation(self, step: int, figures: Mapping[str, Any]) -> None:
        """One line of figures."""
        self._add(EVALUATIONS, step, figures)

    def flush(self) -> None:
        """Write what was added."""
        for name in dict.fromkeys(name for name, _ in self._pending):
            text = "".join(line for owner, line in self._pending if owner == name)
            with (self.folder / name).open("a", encoding="utf-8") as stream:
                stream.write(text)
        self._pending = []

    def _add(self, name: str, step: int, values: Mapping[str, Any]) -> None:
        if not self.is_silent:
            self._pending.append((name, json.dumps(_jsonable({"step": step, **values})) + "\n"))


class Clock:
    """How long steps take, and how much of that the model waits for data."""

    def __init__(self) -> None:
        self._started, self._waited = time.monotonic(), 0.0
        self._samples, self._seconds, self._idle = 0, 0.0, 0.0

    def restart(self) -> None:
        """What happened since the last lap belongs to no step."""
        self._started, self._waited = time.monotonic(), 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around what waits for data."""
        began = time.monotonic()
        yield
        self._waited += time.monotonic() - began

    def lap(self, num_samples: int) -> dict[str, float]:
        """`seconds` of this step, its `samples_per_second`, and the share `waiting` for data."""
        seconds = max(time.monotonic() - self._started, 1e-9)
        found = {
            "seconds": round(seconds, 4),
            "samples_per_second": round(num_samples / seconds, 3),
            "waiting": round(self._waited / seconds, 4),
        }
        self._samples, self._seconds, self._idle = (
            self._samples + num_samples,
            self._seconds + seconds,
            self._idle + self._waited,
        )
        self.restart()
        return found

    def summary(self) -> str:
        """A line about all laps."""
        share = self._idle / max(self._seconds, 1e-9)
        advice = "; raise num_workers to wait less" if share > _LONG_WAIT else ""
        return (
            f"{self._samples / max(self._seconds, 1e-9):.1f} samples per second, "
            f"{share:.0%} of the time spent waiting for data{advice}"
        )


def sum_losses(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, float]:
    """Losses of the parts of a step, summed by name and averaged over processes. All processes must call it."""
    names = sorted({name for part in parts for name in part})
    sums = torch.stack([torch.stack([part[name].float() for part in parts if name in part]).sum() for name in names])
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(sums)
        sums /= distributed.get_world_size()
    return dict(zip(names, sums.tolist(), strict=True))


def task_losses(metrics: Mapping[str, Any]) -> dict[str, str]:
    """The loss of each task of a step, short enough for a progress bar."""
    return {name.removesuffix("/total"): f"{value:.2f}" for name, value in metrics.items() if name.endswith("/total")}


def _changed_settings(file: Path, settings: Mapping[str, Any]) -> list[str]:
    if not file.is_file():
        return []
    old = yaml.safe_load(file.read_text(encoding="utf-8"))
    before, now = (dict(_flat("", values)) for values in ((old or {}).get("settings", {}), settings))
    names = dict.fromkeys([*before, *now])
    return [
        f"not exactly the same run: {name} was {before.get(name)} and is {now.get(name)}"
        for name in names
        if before.get(name) != now.get(name)
    ]


def _flat(prefix: str, values: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(values, dict):
        for name, value in values.items():
            yield from _flat(f"{prefix}.{name}" if prefix else str(name), value)
    else:
        yield prefix, values


def read_journal(file: Path) -> list[dict[str, Any]]:
    """All complete lines of a journal."""
    return [json.loads(line) for line in _lines(file)]


def describe_environment(folder: Path) -> dict[str, Any]:
    """Versions, machine and git commit of `folder`: what a result depends on besides its settings."""
    return {
        "packages": {name: _version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "machine": platform.platform(),
        "git_commit": _git(folder, "rev-parse", "HEAD"),
        "git_is_clean": _git(folder, "status", "--porcelain", "--untracked-files=no") == "",
    }


def _lines(file: Path) -> list[str]:
    if not file.exists():
        return []
    # A line without its end was cut off when the run died.
    return [line for line in file.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]


def _step(line: str) -> int:
    return int(json.loads(line)["step"])


def _jsonable(value: Any) -> Any:
    """Numbers that JSON cannot hold (NaN, infinity) become null."""
    if isinstance(value, dict):
        return {name: _jsonable(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
