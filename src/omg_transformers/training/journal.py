"""The log of a training run: one JSON object per line, and what is needed to repeat the run."""

from __future__ import annotations

import json
import math
import platform
import subprocess
import time
from importlib import metadata
from typing import TYPE_CHECKING, Any

import torch
import yaml
from torch import distributed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

_PACKAGES = ("omg-transformers", "torch", "torchvision", "transformers", "accelerate", "datasets", "timm", "numpy")


class Journal:
    """A run's folder: `run.yaml` says how to repeat it, `log.jsonl` gets one JSON object per line.

    record: all that the run depends on. from_step: on resume, lines of later steps are dropped, as they come again.
    is_silent: write nothing; for all processes but one.
    """

    def __init__(self, folder: Path, record: Mapping[str, Any], *, from_step: int = 0, is_silent: bool = False) -> None:
        self.file, self.is_silent = folder / "log.jsonl", is_silent
        if is_silent:
            return
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / "run.yaml", yaml.safe_dump(dict(record), sort_keys=False))
        _replace(self.file, "".join(line for line in _lines(self.file) if _step(line) <= from_step))

    def write(self, step: int, **values: Any) -> None:
        """One line. Numbers that JSON cannot hold (NaN, infinity) become null."""
        if self.is_silent:
            return
        record = {"step": step, **{name: _jsonable(value) for name, value in values.items()}}
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record) + "\n")


class Window:
    """Losses of the steps since the last line of the journal."""

    def __init__(self) -> None:
        self._losses: list[dict[str, Tensor]] = []
        self._started = time.monotonic()

    def restart(self) -> None:
        """Forget all, and start the clock."""
        self._losses, self._started = [], time.monotonic()

    def add(self, losses: dict[str, Tensor]) -> None:
        """Losses of one step, by name; not every step has every name."""
        self._losses.append({name: value.detach() for name, value in losses.items()})

    def close(self) -> dict[str, float]:
        """Means by name, each over the steps that have the name and over processes; `seconds` per step. Restarts."""
        seconds = (time.monotonic() - self._started) / max(len(self._losses), 1)
        names = sorted({name for values in self._losses for name in values})
        steps = [[values[name].float() for values in self._losses if name in values] for name in names]
        means = torch.stack([torch.stack(values).mean() for values in steps])
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(means)
            means /= distributed.get_world_size()
        self.restart()
        return {**dict(zip(names, means.tolist(), strict=True)), "seconds": round(seconds, 4)}


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


def _replace(file: Path, text: str) -> None:
    part = file.with_name(f".{file.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(file)


def _lines(file: Path) -> list[str]:
    if not file.exists():
        return []
    # A line without its end was cut off when the run died.
    return [line for line in file.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]


def _step(line: str) -> int:
    return int(json.loads(line)["step"])


def _jsonable(value: Any) -> Any:
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
