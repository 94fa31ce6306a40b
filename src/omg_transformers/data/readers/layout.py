"""How a reader presents itself: its name, how its files are recognised, how they are opened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from omg_transformers.data.sources import OnError, SampleSource
    from omg_transformers.labels import LabelSpace


class Opener(Protocol):
    """Opens one split; readers add keyword arguments of their own."""

    def __call__(
        self, root: Path, split: str, *, label_space: LabelSpace | None = None, on_error: OnError = "raise"
    ) -> SampleSource:
        """label_space: default the data set's own classes. Raises ValueError or OSError that names the file."""


@dataclass(frozen=True, slots=True)
class Layout:
    """One way in which annotated files lie on disk. name: the `kind` of settings. title: for people.

    splits: names of the splits under a folder, () when it is not in this layout; reads names and heads of files only.
    """

    name: str
    title: str
    splits: Callable[[Path], tuple[str, ...]]
    open: Opener
