"""Checkpoints of a training run: written whole or not at all, the newest few kept, resumed exactly."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from safetensors.torch import load_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

_FORMAT = 1
_NAME = re.compile(r"step_(\d{8})")
_PROGRESS, _OPTIMIZER, _WEIGHTS = "progress.json", "optimizer.pt", "model.safetensors"


class SavesPretrained(Protocol):
    """What is asked of a model besides being a module: it writes `model.safetensors` and its config."""

    def save_pretrained(self, save_directory: str) -> Any:
        """Write the model into a folder."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands. step: optimizer steps done. state: JSON-able state of the data stream and the like."""

    step: int
    state: dict[str, Any]


def save_checkpoint(
    folder: Path,
    progress: Progress,
    *,
    model: SavesPretrained,
    optimizer: torch.optim.Optimizer,
    keep: int = 2,
) -> Path:
    """Write `folder/step_XXXXXXXX`, then remove all but the newest `keep`. Call it in one process only.

    The folder appears under its name when it is complete; a run that dies while writing leaves only a hidden one.
    """
    if keep < 1:
        raise ValueError(f"keep is {keep}: at least 1 checkpoint has to be kept")
    target = folder / f"step_{progress.step:08d}"
    part = folder / f".{target.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    model.save_pretrained(str(part))
    torch.save(optimizer.state_dict(), part / _OPTIMIZER)
    content = {"format": _FORMAT, "step": progress.step, "state": progress.state}
    (part / _PROGRESS).write_text(json.dumps(content, indent=1), encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)
    for old in complete_checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return target


def complete_checkpoints(folder: Path) -> list[Path]:
    """All complete checkpoints of a run, oldest first."""
    if not folder.is_dir():
        return []
    found = [entry for entry in folder.iterdir() if _NAME.fullmatch(entry.name) and (entry / _PROGRESS).is_file()]
    return sorted(found)


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint, None if there is none."""
    found = complete_checkpoints(folder)
    return found[-1] if found else None


def load_checkpoint(path: Path, *, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    """Put weights and optimizer state back in place and return where the run stood.

    Raises ValueError when the folder is not a checkpoint or belongs to another model or optimizer.
    """
    content = _read_progress(path)
    weights = load_file(path / _WEIGHTS)
    _check_keys(path, weights, model)
    model.load_state_dict(weights)
    # A pickle can run code; weights_only refuses all but tensors and plain containers.
    state = torch.load(path / _OPTIMIZER, map_location="cpu", weights_only=True)
    try:
        optimizer.load_state_dict(state)
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"{path / _OPTIMIZER} does not fit this optimizer ({error}): resume with the settings it was saved with"
        ) from error
    return Progress(step=int(content["step"]), state=content["state"])


def _read_progress(path: Path) -> dict[str, Any]:
    file = path / _PROGRESS
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"{path} is no checkpoint: it has no {_PROGRESS}; give a folder step_XXXXXXXX of a run"
        ) from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is damaged ({error}): resume from an older checkpoint") from error
    if content.get("format") != _FORMAT:
        raise ValueError(f"{file} has format {content.get('format')}, this version reads {_FORMAT}")
    return dict(content)


def _check_keys(path: Path, weights: Mapping[str, torch.Tensor], model: nn.Module) -> None:
    own = model.state_dict()
    shape_errors = [
        f"{name} is {tuple(weights[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    missing, foreign = sorted(set(own) - set(weights)), sorted(set(weights) - set(own))
    if missing or foreign or shape_errors:
        raise ValueError(
            f"{path} belongs to another model. Missing: {missing[:8] or 'none'}; foreign: {foreign[:8] or 'none'}; "
            f"wrong shapes: {shape_errors[:8] or 'none'}. Resume with the model settings it was saved with."
        )
