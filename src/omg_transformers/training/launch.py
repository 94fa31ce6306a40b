"""Starting, stopping and agreeing among the processes of a training run, and what to do when something breaks."""

from __future__ import annotations

import os
import shutil
import signal
import warnings
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import distributed

from omg_transformers.plugins import load_head
from omg_transformers.plugins.contract import AsksPrompts
from omg_transformers.training.checkpoints import newest_checkpoint
from omg_transformers.training.journal import RECORD
from omg_transformers.training.sharding import settle_sharding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from omg_transformers.data import SampleSource
    from omg_transformers.training.lessons import Lesson

# What gloo, NCCL and torch say when another process is gone.
_LOST_WORDS = ("Connection closed by peer", "Connection reset by peer", "Timed out waiting", "NCCL", "ProcessGroup")


def start_accelerator(
    output: Path, mixed_precision: str, tracker: str | None = None, timeout: float = 600.0
) -> Accelerator:
    """Join the processes of this run. timeout: seconds that they wait for one another before they give up."""
    if timeout <= 0:
        raise ValueError(f"timeout is {timeout}: expected seconds, above 0")
    accelerator = Accelerator(
        mixed_precision=mixed_precision,
        log_with=tracker,
        project_dir=output,
        kwargs_handlers=[
            # A batch asks only some kinds of queries, so some parameters have no gradient.
            DistributedDataParallelKwargs(find_unused_parameters=True),
            InitProcessGroupKwargs(timeout=timedelta(seconds=timeout)),
        ],
    )
    settle_sharding(accelerator)
    return accelerator


def describe_processes(accelerator: Accelerator) -> dict[str, Any]:
    """How many processes train together, and how accelerate calls what they share."""
    return {"processes": accelerator.num_processes, "distributed_type": accelerator.distributed_type.value}


def check_processes(world_size: int, batch_size: int, accumulate: int = 1) -> int:
    """The samples per process and part of a step. Refuses processes that do not know of each other, as some launch
    commands start, and uneven batches."""
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched != world_size:
        raise ValueError(
            f"{launched} processes were launched but this one trains with {world_size}. For several CPU processes use "
            "ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes N ..."
        )
    if accumulate < 1:
        raise ValueError(f"accumulate is {accumulate}: a step has at least 1 part")
    if batch_size < 1 or batch_size % (world_size * accumulate):
        parts = f"{world_size} processes" + (f" times accumulate {accumulate}" if accumulate > 1 else "")
        raise ValueError(
            f"batch_size is {batch_size}, all samples of a step: give a multiple of {world_size * accumulate}, the "
            f"{parts}"
        )
    return batch_size // (world_size * accumulate)


def check_shares(mix: Mapping[str, float], sources: Sequence[tuple[float, Sequence[str]]]) -> None:
    """Refuse shares of tasks and weights of sources of which nothing can be drawn. sources: their weights and tasks."""
    _check_numbers("mix", list(mix.values()))
    _check_numbers("weights of sources", [weight for weight, _ in sources])
    for task, share in mix.items():
        weights = [weight for weight, tasks in sources if task in tasks]
        if share and weights:
            _check_numbers(f"weights of sources that serve {task}", weights)


def _check_numbers(name: str, values: Sequence[float]) -> None:
    if not values:
        raise ValueError(f"{name} is empty: name at least one")
    wrong = [value for value in values if not 0 <= value < float("inf")]
    if wrong:
        raise ValueError(f"{name} holds {wrong[0]}: expected numbers from 0 on")
    if not sum(values):
        raise ValueError(f"{name}: all of {len(values)} are 0, nothing could be drawn; give one a share above 0")


def check_held_out(task: str, prompts: str | None, source: SampleSource) -> None:
    """Refuse an entry of `evaluation` that could not be measured, before anything is trained."""
    head = load_head(task)
    if task not in source.tasks:
        raise ValueError(f"evaluation asks for the task {task!r}, its source serves {', '.join(source.tasks)}")
    if head.spec.query_type == "learned":
        kinds: tuple[str, ...] = ()
    elif isinstance(head, AsksPrompts):
        kinds = head.prompt_kinds
    else:
        raise ValueError(f"evaluation asks for the task {task!r}, which has no standard prompts (see AsksPrompts)")
    if prompts is not None and prompts not in kinds:
        raise ValueError(f"evaluation of {task!r} has prompts {prompts!r}: expected {', '.join(kinds) or 'none'}")


def check_best(name: str, tasks: Sequence[str]) -> None:
    """Refuse a figure, "task/figure", of a task that is not measured. "mean" is of all."""
    task, slash, _ = name.partition("/")
    if name != "mean" and tasks and (not slash or task not in tasks):
        measured = ", ".join(dict.fromkeys(tasks))
        raise ValueError(f"best is {name!r}: expected 'mean' or 'task/figure' with a task of `evaluation`: {measured}")


def check_output(folder: Path, model: nn.Module, *, keep: int, with_average: bool) -> None:
    """Refuse an output folder that cannot be written, or whose disk has no room for a run's checkpoints."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise ValueError(f"output is {folder}, but {place} cannot be written: choose another output")
    needed, free = _checkpoint_bytes(model, keep, with_average), shutil.disk_usage(place).free
    if free < needed:
        raise ValueError(
            f"output is {folder}, but its disk has {free / 2**20:.0f} MiB free and the run's checkpoints take about "
            f"{needed / 2**20:.0f} MiB: free space, lower `keep`, or choose another output"
        )


def _checkpoint_bytes(model: nn.Module, keep: int, with_average: bool) -> int:
    """One more checkpoint than are kept, and the results."""
    whole = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    moments = 2 * sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    return (keep + 1) * (whole * (1 + with_average) + moments) + 3 * whole


def find_start(output: Path, is_resumed: bool) -> Path | None:
    """The checkpoint to go on from, None to start at step 0. A folder that holds a run is never written over."""
    newest = newest_checkpoint(output / "checkpoints")
    if newest is not None and not is_resumed:
        raise ValueError(f"{output} holds a run ({newest.name}): pass --resume to go on, or choose another output")
    # A run that was killed before its first checkpoint is resumed from its beginning.
    if newest is None and is_resumed and not (output / RECORD).is_file():
        raise ValueError(f"{output} holds no complete checkpoint: leave out --resume to start")
    return newest


def freeze_parameters(model: nn.Module, prefixes: Sequence[str]) -> None:
    """Stop training every parameter whose name starts with one of `prefixes`. ValueError for one that fits none."""
    for prefix in prefixes:
        chosen = [parameter for name, parameter in model.named_parameters() if name.startswith(prefix)]
        if not chosen:
            parts = sorted({name.partition(".")[0] for name, _ in model.named_parameters()})
            raise ValueError(
                f"frozen names {prefix!r}, but no parameter of the model starts with it; they start with "
                f"{', '.join(parts)}"
            )
        for parameter in chosen:
            parameter.requires_grad_(False)


class StopSignal:
    """Remembers SIGTERM and the first Ctrl-C while it is entered, so that the step can be finished and saved."""

    def __init__(self) -> None:
        self._is_received = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignal:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: object) -> None:
        del frame
        self._is_received = True
        if number == signal.SIGINT:  # a second one does what it always does
            signal.signal(signal.SIGINT, self._before[signal.SIGINT])

    def is_set(self, device: torch.device) -> bool:
        """Whether any process was asked to stop; all processes must ask."""
        if not _is_distributed():
            return self._is_received
        flag = torch.tensor(float(self._is_received), device=device)
        distributed.all_reduce(flag)
        return bool(flag > 0)


class GradientGuard:
    """Lets single steps with NaN or infinite gradients be skipped, and ends a run that has too many in a row.

    complaint: what was wrong with the last bad step, and with which samples.
    """

    def __init__(self, most_in_a_row: int = 5) -> None:
        self.most_in_a_row, self.num_bad, self.complaint = most_in_a_row, 0, ""

    def is_good(self, norm: Tensor, step: int, lessons: Sequence[Lesson] = ()) -> bool:
        """Whether to make this step; all processes must ask. lessons: what was asked in it.

        Raises FloatingPointError after the last bad one that is allowed.
        """
        self.complaint = ""
        if bool(norm.isfinite()):
            self.num_bad = 0
            return True
        self.num_bad += 1
        suspects = _gather([name for lesson in lessons for name in lesson.suspects])
        everyone = _gather([name for lesson in lessons for name in lesson.batch["sample_ids"]])
        named = list(dict.fromkeys(suspects or everyone))
        more = f" and {len(named) - 8} more" if len(named) > 8 else ""
        self.complaint = f"step {step}: the gradient is not finite, the step is left out; samples: " + (
            f"{', '.join(named[:8]) or 'unknown'}{more}"
        )
        if self.num_bad >= self.most_in_a_row:
            raise FloatingPointError(
                f"step {step}: {self.num_bad} gradients in a row are not finite. Look at the samples "
                f"{', '.join(named[:8])}{more}; or go on from the last checkpoint with a lower "
                "optimizer.learning_rate or optimizer.max_grad_norm"
            )
        warnings.warn(self.complaint, stacklevel=2)
        return False

    def report(self) -> dict[str, str]:
        """For the line of the step: why it was left out, nothing for a good one."""
        return {"left_out": self.complaint} if self.complaint else {}


class OutOfMemoryError(RuntimeError):
    """Memory ran out; the message says which settings to change."""


@contextmanager
def memory_advice(per_pass: int, accumulate: int, size: tuple[int, int]) -> Iterator[None]:
    """Says what to change when the block runs out of memory. per_pass: samples that a process handles at once."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        words = ("out of memory", "can't allocate memory", "not enough memory")
        is_about_memory = isinstance(error, (MemoryError, torch.OutOfMemoryError))
        if not is_about_memory and not any(word in str(error) for word in words):
            raise
        raise OutOfMemoryError(
            f"memory ran out with {per_pass} samples of {size[0]}x{size[1]} at once in each process. Results stay the "
            f"same with a higher accumulate (now {accumulate}), which splits each step further; else lower batch_size, "
            f"transform.size or, with points, loss.num_points; on a GPU mixed_precision=bf16 helps. ({error})"
        ) from error


def is_lost_process(error: BaseException) -> bool:
    """Whether an error says that another process of the run is gone."""
    return _is_distributed() and isinstance(error, RuntimeError) and any(word in str(error) for word in _LOST_WORDS)


def _gather(texts: Sequence[str]) -> list[str]:
    if not _is_distributed():
        return list(texts)
    everyone: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(everyone, list(texts))
    return [text for texts in everyone for text in texts]


def _is_distributed() -> bool:
    return distributed.is_available() and distributed.is_initialized()
