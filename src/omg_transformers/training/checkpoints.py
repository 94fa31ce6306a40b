"""Checkpoints of a training run: written whole or not at all, the newest few kept, resumed exactly."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import nn

_FORMAT = 1
_NAME = re.compile(r"step_(\d{8})")
_PROGRESS, _OPTIMIZER, _WEIGHTS, _AVERAGE = "progress.json", "optimizer.pt", "model.safetensors", "average.safetensors"


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
    optimizer: torch.optim.Optimizer | Mapping[str, Any],
    average: nn.Module | None = None,
    keep: int = 2,
) -> Path:
    """Write `folder/step_XXXXXXXX`, then remove all but the newest `keep`. Call it in one process only.

    optimizer: or its state. average: the running average of the model's weights. The folder appears under its name
    when it is complete; a run that dies while writing leaves only a hidden one. Raises OSError when it cannot be
    written: older ones stay.
    """
    if keep < 1:
        raise ValueError(f"keep is {keep}: at least 1 checkpoint has to be kept")
    target = folder / f"step_{progress.step:08d}"
    with written_whole(target) as part:
        model.save_pretrained(str(part))
        moments = optimizer.state_dict() if isinstance(optimizer, torch.optim.Optimizer) else dict(optimizer)
        _save_pickle(moments, part / _OPTIMIZER)
        if average is not None:
            save_file(_shared_once(average.state_dict()), part / _AVERAGE)
        content = {"format": _FORMAT, "step": progress.step, "state": progress.state}
        (part / _PROGRESS).write_text(json.dumps(content, indent=1), encoding="utf-8")
    for old in complete_checkpoints(folder)[:-keep]:
        _remove(old)
    return target


def keep_best(folder: Path, step: int, figure: float, write: Callable[[Path], Any]) -> Path:
    """Put what `write` writes into a folder at `folder/step_XXXXXXXX`, then remove what was best before."""
    target = folder / f"step_{step:08d}"
    with written_whole(target) as part:
        write(part)
        (part / "best.json").write_text(json.dumps({"step": step, "figure": figure}), encoding="utf-8")
    for old in folder.iterdir():
        if _NAME.fullmatch(old.name) and old != target:
            _remove(old)
    return target


@contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """A hidden folder that takes the place of `target` when the block has filled it, or vanishes."""
    part = target.with_name(f".{target.name}.part")
    try:
        for leftover in (part, *target.parent.glob(".*.old")):  # of a run that was killed here
            shutil.rmtree(leftover, ignore_errors=True)
        part.mkdir(parents=True)
        yield part
        if target.exists():
            _remove(target)
        part.rename(target)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(part, ignore_errors=True)
        raise OSError(
            f"{target} could not be written ({error}). Free space there or choose another output; what was complete "
            "before is untouched: --resume goes on from it"
        ) from error
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _save_pickle(content: Any, path: Path) -> None:
    try:
        torch.save(content, path)
    except RuntimeError as error:  # what torch makes of a full disk, in words that change
        raise OSError(f"{path.name}: {error}") from error


def _remove(folder: Path) -> None:
    """Out of sight at once: half a checkpoint must never look like a whole one."""
    hidden = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(hidden, ignore_errors=True)
    folder.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def _shared_once(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}


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


def load_checkpoint(
    path: Path, *, model: nn.Module, optimizer: torch.optim.Optimizer, average: nn.Module | None = None
) -> Progress:
    """Put weights, optimizer state and averaged weights back in place and return where the run stood.

    Raises ValueError when the folder is not a checkpoint or belongs to another model or optimizer.
    """
    content = _read_progress(path)
    weights = load_file(path / _WEIGHTS)
    _check_keys(path, weights, model)
    model.load_state_dict(weights)
    if not (path / _OPTIMIZER).is_file():
        raise ValueError(f"{path} has no {_OPTIMIZER}: it is no whole checkpoint, resume from another")
    # A pickle can run code; weights_only refuses all but tensors and plain containers.
    state = torch.load(path / _OPTIMIZER, map_location="cpu", weights_only=True)
    try:
        optimizer.load_state_dict(state)
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"{path / _OPTIMIZER} does not fit this optimizer ({error}): resume with the settings it was saved with"
        ) from error
    if average is not None:
        if not (path / _AVERAGE).is_file():
            raise ValueError(f"{path} has no averaged weights: resume with ema_decay: null, as it was saved")
        average.load_state_dict(load_file(path / _AVERAGE))
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
