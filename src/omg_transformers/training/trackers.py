"""Where figures go besides the files of a run: TensorBoard and its like, through accelerate."""

from __future__ import annotations

import logging
import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from omg_transformers.settings import nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from accelerate import Accelerator

_log = logging.getLogger(__name__)


def choose_tracker(name: str | None) -> str | None:
    """What to pass to accelerate as `log_with`. Says so where nothing will be tracked.

    name: of a tracker of accelerate; "auto": TensorBoard if it is installed; None: none.
    Raises ValueError for one that accelerate does not know or that is not installed.
    """
    if name is None:
        return None
    if name == "auto":
        if find_spec("tensorboard") is not None or find_spec("tensorboardX") is not None:
            return "tensorboard"
        if os.environ.get("RANK", "0") == "0":  # asked before the processes know of each other
            _log.warning("TensorBoard is not installed: figures are in the files of the output folder only")
        return None
    if name not in LOGGER_TYPE_TO_CLASS:
        raise ValueError(
            f"tracker is {name!r}: accelerate has no such tracker{nearest(name, list(LOGGER_TYPE_TO_CLASS))}"
        )
    if name not in [str(tracker) for tracker in get_available_trackers()] and not _is_registered(name):
        raise ValueError(f"tracker is {name!r}, which is not installed: pip install {name}, or tracker: null")
    return name


def track(accelerator: Accelerator, step: int, values: Mapping[str, Any]) -> None:
    """Hand the numbers among `values` to the trackers."""
    accelerator.log({name: value for name, value in values.items() if isinstance(value, (int, float))}, step=step)


def _is_registered(name: str) -> bool:
    """Whether the program itself brought this tracker (`accelerate.tracking.register_tracker_class`)."""
    return not LOGGER_TYPE_TO_CLASS[name].__module__.startswith("accelerate.")
