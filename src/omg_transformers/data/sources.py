"""What every source of samples offers: any sample by its number, and a plain walk through all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from omg_transformers.labels import LabelSpace
    from omg_transformers.structures import Sample

OnError: TypeAlias = Literal["raise", "skip"]


class SampleError(ValueError):
    """One sample cannot be used: the message names its file or id. The others are not affected."""


class SampleSource(Protocol):
    """Samples by number. `sample` is a pure function of its argument: that is what makes resume exact.

    num_samples: valid numbers are 0 .. num_samples - 1; None: endless, every number >= 0 is valid.
    """

    @property
    def num_samples(self) -> int | None:
        """How many there are, None for an endless source."""

    @property
    def label_space(self) -> LabelSpace:
        """The classes that the annotations index."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the heads that the annotations can serve."""

    def sample(self, index: int) -> Sample:
        """Sample number `index`. Raises SampleError when its files are bad, IndexError beyond the end."""


def iterate(
    source: SampleSource,
    *,
    on_error: OnError = "raise",
    skipped: list[str] | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Sample]:
    """All samples in order, or each `world_size`-th from `rank` on: every sample is seen by one process.

    on_error="skip": a bad sample is left out and its message appended to `skipped`.
    """
    check_on_error(on_error)
    if not 0 <= rank < world_size:
        raise ValueError(f"rank is {rank} of world_size {world_size}: expected 0 <= rank < world_size")
    index = rank
    while source.num_samples is None or index < source.num_samples:
        try:
            sample = source.sample(index)
        except SampleError as error:
            if on_error == "raise":
                raise
            if skipped is not None:
                skipped.append(str(error))
        else:
            yield sample
        index += world_size


def check_on_error(on_error: str) -> None:
    """Refuse a policy other than "raise" and "skip"."""
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error is {on_error!r}: expected 'raise' (stop at a bad sample) or 'skip' (leave it out)")


def check_index(index: int, num_samples: int | None, name: str) -> None:
    """Refuse a sample number outside the source called `name`."""
    if index < 0 or (num_samples is not None and index >= num_samples):
        end = "endless" if num_samples is None else f"0..{num_samples - 1}"
        raise IndexError(f"sample {index} of {name}: valid numbers are {end}")


class ShuffledOrder:
    """Draw number n -> sample number: each pass through `num_samples` is a new random order, none left out.

    A pure function of (seed, n); only the order of the last pass is kept in memory.
    """

    def __init__(self, num_samples: int, seed: tuple[int, ...]) -> None:
        if num_samples < 1:
            raise ValueError(f"num_samples is {num_samples}: a source needs at least one sample")
        self.num_samples, self.seed = num_samples, seed
        self._pass = -1
        self._order = np.empty(0, np.int64)

    def __getitem__(self, draw: int) -> int:
        number, place = divmod(draw, self.num_samples)
        if number != self._pass:
            self._order = np.random.default_rng([*self.seed, number]).permutation(self.num_samples)
            self._pass = number
        return int(self._order[place])
