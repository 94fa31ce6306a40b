"""Several processes that work together, as `accelerate launch` or `torchrun` started them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from accelerate import PartialState

if TYPE_CHECKING:
    import torch


def join_processes(device: str | torch.device | None = None) -> PartialState:
    """This process's place among all. device: where it will work; None: a GPU if there is one.

    RuntimeError: the processes do not find each other; each would do the work of all.
    """
    import torch

    # Without `cpu` and without a GPU, accelerate lets each process believe that it is alone.
    on_cpu = device is not None and torch.device(device).type == "cpu"
    state = PartialState(cpu=on_cpu or not torch.cuda.is_available() or _is_set("ACCELERATE_USE_CPU"))
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if state.num_processes != started:
        raise RuntimeError(
            f"{started} processes were started but {state.num_processes} found each other: "
            "launch with `accelerate launch --multi_gpu`, on CPUs with ACCELERATE_USE_CPU=true before it"
        )
    return state


def _is_set(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true", "yes", "on", "y", "t")
