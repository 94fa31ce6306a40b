"""Starting, stopping and agreeing among the processes of a training run."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import torch
from torch import distributed

from omg_transformers.training.checkpoints import newest_checkpoint

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor, nn


def check_processes(world_size: int, batch_size: int) -> None:
    """Refuse processes that do not know of each other, as some launch commands start, and uneven batches."""
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched != world_size:
        raise ValueError(
            f"{launched} processes were launched but this one trains with {world_size}. For several CPU processes use "
            "ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes N ..."
        )
    if batch_size % world_size:
        raise ValueError(f"batch_size is {batch_size}, the total: give a multiple of the {world_size} processes")


def find_start(output: Path, is_resumed: bool) -> Path | None:
    """The checkpoint to go on from, None for a new run. A folder that holds a run is never written over."""
    newest = newest_checkpoint(output / "checkpoints")
    if newest is not None and not is_resumed:
        raise ValueError(f"{output} holds a run ({newest.name}): pass --resume to go on, or choose another output")
    if newest is None and is_resumed:
        raise ValueError(f"{output} holds no complete checkpoint: leave out --resume to start")
    return newest


def freeze_parameters(model: nn.Module, prefixes: Sequence[str]) -> None:
    """Stop training every parameter whose name starts with one of `prefixes`. ValueError for one that fits none."""
    for prefix in prefixes:
        chosen = [parameter for name, parameter in model.named_parameters() if name.startswith(prefix)]
        if not chosen:
            raise ValueError(f"frozen names {prefix!r}, but no parameter of the model starts with it")
        for parameter in chosen:
            parameter.requires_grad_(False)


class StopSignal:
    """Remembers SIGTERM, so that the step can be finished and saved."""

    def __init__(self) -> None:
        self._is_received = False
        signal.signal(signal.SIGTERM, self._receive)

    def _receive(self, number: int, frame: object) -> None:
        del number, frame
        self._is_received = True

    def is_set(self, device: torch.device) -> bool:
        """Whether any process was asked to stop; all processes must ask."""
        if not _is_distributed():
            return self._is_received
        flag = torch.tensor(float(self._is_received), device=device)
        distributed.all_reduce(flag)
        return bool(flag > 0)


class GradientGuard:
    """Lets single steps with NaN or infinite gradients be skipped, and ends a run that has too many in a row."""

    def __init__(self, most_in_a_row: int = 5) -> None:
        self.most_in_a_row, self.num_bad = most_in_a_row, 0

    def is_good(self, norm: Tensor, step: int) -> bool:
        """Whether to make this step. Raises FloatingPointError after the last bad one that is allowed."""
        if bool(norm.isfinite()):
            self.num_bad = 0
            return True
        self.num_bad += 1
        if self.num_bad >= self.most_in_a_row:
            raise FloatingPointError(
                f"step {step}: {self.num_bad} gradients in a row are not finite. Go on from the last checkpoint with a "
                "lower optimizer.learning_rate or optimizer.max_grad_norm"
            )
        return False


def _is_distributed() -> bool:
    return distributed.is_available() and distributed.is_initialized()
