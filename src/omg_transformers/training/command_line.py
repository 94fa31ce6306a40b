"""The command line of a training recipe, and its last words."""

from __future__ import annotations

import argparse
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from huggingface_hub.errors import StrictDataclassError
from transformers.utils.logging import disable_progress_bar

from omg_transformers.settings import load_settings
from omg_transformers.training.launch import OutOfMemoryError, is_lost_process
from omg_transformers.training.sharding import saves_together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class _Run(Protocol):
    accelerator: Any
    step: int


SettingsT = TypeVar("SettingsT")
RunT = TypeVar("RunT", bound=_Run)


def parse_recipe(kind: type[SettingsT], description: str) -> tuple[SettingsT, bool]:
    """Settings of a dataclass `kind`, and whether to resume, from this program's command line.

    `kind` has `output` and `max_steps`. Raises SettingsError with all mistakes at once.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="YAML file with settings")
    parser.add_argument("--output", type=Path, help="folder of the run")
    parser.add_argument("--max-steps", type=int, help="how many steps the whole run has")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint of the output folder")
    parser.add_argument("changes", nargs="*", metavar="key=value", help="settings that differ from the file")
    arguments = parser.parse_intermixed_args()
    given = {"output": arguments.output, "max_steps": arguments.max_steps}
    words = [*arguments.changes, *(f"{name}={value}" for name, value in given.items() if value is not None)]
    return load_settings(kind, arguments.config, words), arguments.resume


@contextmanager
def refusing_mistakes() -> Iterator[None]:
    """Ends the program with the message alone when settings or files are wrong: before any work is done."""
    disable_progress_bar()  # transformers draws one for every file that it reads or writes
    try:
        yield
    except (ValueError, LookupError, OSError, StrictDataclassError) as error:
        raise SystemExit(f"{error}") from error


@contextmanager
def ending_clearly(run: RunT, save: Callable[[RunT], None], *of_data: type[Exception]) -> Iterator[None]:
    """Ends the program with one message when training cannot go on.

    of_data: errors of the samples. After these, and when memory runs out, the weights are those after `run.step`, and
    `save` keeps what was done until then, unless that would need other processes, which may be anywhere.
    """
    harmless: tuple[type[Exception], ...] = (OutOfMemoryError, *of_data)
    is_alone = not saves_together(run.accelerator)
    try:
        yield
    except harmless as error:
        if is_alone:
            save(run)
        kept = "which was saved" if is_alone else "--resume goes on from the newest checkpoint"
        raise SystemExit(f"the run ended after step {run.step}, {kept}: {error}") from error
    except (ValueError, TypeError, LookupError):  # a surprise, of an evaluation for one
        if is_alone:
            save(run)
        raise
    except (OSError, FloatingPointError) as error:
        raise SystemExit(f"the run ended after step {run.step}: {error}") from error
    except RuntimeError as error:
        if str(error).startswith("DataLoader worker"):  # torch raises it wherever the program is: even within a step
            raise SystemExit(
                f"the run ended at step {run.step}: a process that loads samples has died ({error}). Most often memory "
                "ran out: lower num_workers or batch_size; --resume goes on from the newest checkpoint"
            ) from error
        if not is_lost_process(error):
            raise
        raise SystemExit(
            f"process {run.accelerator.process_index} stops after step {run.step}: another process of the run is gone, "
            "see its own message or signal; the same command with --resume goes on from the newest checkpoint"
        ) from error
