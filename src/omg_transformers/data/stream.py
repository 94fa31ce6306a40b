"""An endless mix of tasks and sources: weighted, sharded by rank and worker, resumable to the exact sample."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from omg_transformers.data.sources import OnError, SampleError, ShuffledOrder, check_on_error
from omg_transformers.data.transforms import EvalTransform

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from omg_transformers.data.collate import Batch
    from omg_transformers.data.sources import SampleSource
    from omg_transformers.data.transforms import Transform
    from omg_transformers.structures import Sample

# Within this many batches every part gets its share to within one batch.
_BLOCK = 256
# A source with this many bad samples in a row is broken as a whole.
_MAX_REPLACEMENTS = 10


class WorkerLostError(RuntimeError):
    """A process that makes batches ahead was killed; nothing that was handed out is affected."""


class Collate(Protocol):
    """Makes a batch of transformed samples: `functools.partial(collate, mean=..., std=...)`."""

    def __call__(self, samples: Sequence[Sample], *, task: str) -> Batch:
        """One batch of one task."""


@dataclass(frozen=True, slots=True)
class MixPart:
    """One ingredient of a mix. weight: its share of the batches, relative to the other parts.

    transform: default decodes the frames and changes nothing. name: for logs, default "<task>:<number>".
    """

    task: str
    source: SampleSource
    weight: float = 1.0
    transform: Transform | None = None
    name: str = ""


class MixedStream:
    """Batches without end; each comes from one part, so it has one task and one label space.

    Batch number k is a pure function of (parts, seed, rank, world_size, k): the state is one integer. All ranks draw
    the same part at the same time, and together see what one process with `world_size` times the batch sees. A finite
    source is passed through in a new order each time, none left out; an endless one is read by number from 0.
    accumulate: so many batches in a row are of one part and make one step; together they see what one batch of
    `accumulate` times the size sees. The state counts steps.
    num_workers: processes that make batches ahead; worker w makes every num_workers-th, the order stays the same.
    on_error="skip": a bad sample is replaced by another of its source and its message kept in `skipped`.
    """

    def __init__(
        self,
        parts: Sequence[MixPart],
        *,
        batch_size: int,
        collate: Collate,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        accumulate: int = 1,
        on_error: OnError = "raise",
    ) -> None:
        check_on_error(on_error)
        _check_parts(parts)
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}: expected at least 1 sample per process")
        if accumulate < 1:
            raise ValueError(f"accumulate is {accumulate}: expected at least 1 batch per step")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank is {rank} of world_size {world_size}: expected 0 <= rank < world_size")
        if seed < 0:
            raise ValueError(f"seed is {seed}: expected 0 or more")
        if num_workers < 0:
            raise ValueError(f"num_workers is {num_workers}: expected 0 (this process) or more")
        self.parts = tuple(parts)
        self.batch_size, self.collate, self.seed = batch_size, collate, seed
        self.rank, self.world_size, self.num_workers, self.on_error = rank, world_size, num_workers, on_error
        self.accumulate = accumulate
        self.position = 0
        self.skipped: list[str] = []
        self._schedule = _Schedule([part.weight for part in parts], seed)
        self._orders = [
            None if part.source.num_samples is None else ShuffledOrder(part.source.num_samples, (seed, 7004, number))
            for number, part in enumerate(parts)
        ]

    def __iter__(self) -> Iterator[Batch]:
        """From `position` on; the state counts a batch once it has been handed out."""
        for batch in self._batches():
            self.position = batch["position"] + 1
            self.skipped.extend(batch["skipped"])
            yield batch

    def batch(self, position: int) -> Batch:
        """Batch number `position` of this rank."""
        step, place = divmod(position, self.accumulate)
        number, earlier = self._schedule[step]
        part = self.parts[number]
        first = ((earlier * self.accumulate + place) * self.world_size + self.rank) * self.batch_size
        skipped: list[str] = []
        draws = range(first, first + self.batch_size)
        batch = self.collate([self._sample(number, draw, skipped) for draw in draws], task=part.task)
        batch["part"], batch["position"], batch["skipped"] = self._name(number), position, skipped
        batch["seeds"] = [self._seed(number, draw) for draw in draws]
        return batch

    def state_dict(self, step: int | None = None) -> dict[str, Any]:
        """Where the stream stands, JSON-able: a step of which not all batches were handed out comes again.

        step: as if so many steps had been handed out.
        """
        done = self.position // self.accumulate if step is None else step
        return {"position": done, "fingerprint": self._fingerprint()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the last batch that was handed out. Raises ValueError when the mix is not the one that was saved.

        The number of processes may change as long as processes times batch size times `accumulate` does not.
        """
        saved, current = json.loads(state["fingerprint"]), json.loads(self._fingerprint())
        changed = [
            f"{key} was {saved.get(key)}, is {current.get(key)}"
            for key in sorted({*saved, *current})
            if saved.get(key) != current.get(key)
        ]
        if changed:
            raise ValueError(
                f"the saved stream is another one: {'; '.join(changed)}. Resume with the same mix, seed and total "
                "batch size, or start a new stream"
            )
        self.position = int(state["position"]) * self.accumulate

    def _batches(self) -> Iterator[Batch]:
        if self.num_workers == 0:
            return (self.batch(position) for position in itertools.count(self.position))
        return self._loaded()

    def _loaded(self) -> Iterator[Batch]:
        try:
            yield from DataLoader(_WorkerBatches(self), batch_size=None, num_workers=self.num_workers)
        except (RuntimeError, ConnectionError, FileNotFoundError, EOFError) as error:
            if not is_lost_worker(error):
                raise
            raise WorkerLostError(
                f"a process that makes batches has died ({error}). Most often memory ran out: lower num_workers, now "
                f"{self.num_workers}, or the batch size"
            ) from error

    def _sample(self, number: int, draw: int, skipped: list[str]) -> Sample:
        part = self.parts[number]
        order = self._orders[number]
        index = draw if order is None else order[draw]
        for attempt in range(1, _MAX_REPLACEMENTS + 1):
            try:
                # Chance depends on the draw, not on rank or worker: how the work is split changes nothing.
                rng = np.random.default_rng([self.seed, 7005, number, draw])
                return (part.transform or EvalTransform())(part.source.sample(index), rng)
            except SampleError as error:
                if self.on_error == "raise":
                    raise
                skipped.append(str(error))
            index = self._replacement(number, draw, attempt)
        raise SampleError(
            f"{_MAX_REPLACEMENTS} samples in a row of {self._name(number)} are bad; the last: {skipped[-1]}"
        )

    def _seed(self, number: int, draw: int) -> int:
        """What all chance about one sample may start from, after the transform."""
        return int(np.random.SeedSequence([self.seed, 7008, number, draw]).generate_state(1, np.uint64)[0] >> 1)

    def _replacement(self, number: int, draw: int, attempt: int) -> int:
        num_samples = self.parts[number].source.num_samples
        if num_samples is None:
            return draw + attempt
        return int(np.random.default_rng([self.seed, 7006, number, draw, attempt]).integers(num_samples))

    def _name(self, number: int) -> str:
        return self.parts[number].name or f"{self.parts[number].task}:{number}"

    def _fingerprint(self) -> str:
        return json.dumps(
            {
                "seed": self.seed,
                "total_batch_size": self.batch_size * self.world_size * self.accumulate,
                "parts": [
                    [self._name(number), part.task, part.weight, part.source.num_samples]
                    for number, part in enumerate(self.parts)
                ],
            }
        )


def is_lost_worker(error: BaseException) -> bool:
    """Whether an error of a `DataLoader` says that one of its processes is gone, in torch's words or as a broken pipe.

    What a process raised itself arrives with "Caught" in front: that one lives.
    """
    if str(error).startswith("Caught "):
        return False
    # A batch lies in memory of its process until it is fetched: the connection can break before torch sees the death.
    is_broken_pipe = isinstance(error, (ConnectionError, FileNotFoundError, EOFError))
    return is_broken_pipe or str(error).startswith("DataLoader worker")


class _WorkerBatches(IterableDataset[Any]):
    """The share of one worker process; the loader takes one batch from each worker in turn."""

    def __init__(self, stream: MixedStream) -> None:
        self.stream = stream

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for position in itertools.count(self.stream.position + first, step):
            yield self.stream.batch(position)


class _Schedule:
    """Batch number -> (part, how many earlier batches that part had). Drawn in blocks, evenly by weight."""

    def __init__(self, weights: Sequence[float], seed: int) -> None:
        self._ends = np.cumsum(np.asarray(weights, np.float64) / np.sum(weights))
        self._seed = seed
        # Batches per part before each block.
        self._before = [np.zeros(len(weights), np.int64)]
        self._block, self._parts = -1, np.empty(0, np.int64)

    def __getitem__(self, position: int) -> tuple[int, int]:
        block, place = divmod(position, _BLOCK)
        while len(self._before) <= block:
            drawn = np.bincount(self._draw(len(self._before) - 1), minlength=len(self._ends))
            self._before.append(self._before[-1] + drawn)
        if block != self._block:
            self._block, self._parts = block, self._draw(block)
        number = int(self._parts[place])
        return number, int(self._before[block][number] + np.count_nonzero(self._parts[:place] == number))

    def _draw(self, block: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        rng = np.random.default_rng([self._seed, 7007, block])
        levels = (rng.permutation(_BLOCK) + rng.random()) / _BLOCK
        return np.minimum(np.searchsorted(self._ends, levels, side="right"), len(self._ends) - 1)


def _check_parts(parts: Sequence[MixPart]) -> None:
    if not parts:
        raise ValueError("parts is empty: give at least one MixPart(task, source)")
    for number, part in enumerate(parts):
        if not 0 < part.weight < float("inf"):
            raise ValueError(
                f"parts[{number}] has weight {part.weight}: expected a positive number; leave the part out"
            )
        if part.task not in part.source.tasks:
            raise ValueError(
                f"parts[{number}] wants the task {part.task!r}, its source serves {list(part.source.tasks)}"
            )
        if part.source.num_samples == 0:
            raise ValueError(f"parts[{number}] has a source without samples: check its folder")
