"""Any number of pictures over any number of processes and nodes: each exactly once, also after a kill and a resume."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import secrets
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate.utils import broadcast_object_list, gather_object

from omg_transformers.formats import write_bytes, write_json
from omg_transformers.formats.shards import KeySet, ShardWriter, repair_shards, shard_keys, shard_paths
from omg_transformers.inference.processes import join_processes
from omg_transformers.inference.state_files import model_fingerprint
from omg_transformers.processing.pictures import read_picture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from accelerate import PartialState

    from omg_transformers.inference.pipeline import OMGSegPipeline
    from omg_transformers.structures import Segments

SETTINGS = "settings.json"
# Holds a new word for each run: who reads another one does not see the same folder.
RUN = ".run"


@dataclasses.dataclass(frozen=True, slots=True)
class BulkReport:
    """What this process did. num_before: results that were there at the start, of all processes."""

    process: int
    num_processes: int
    num_done: int
    num_failed: int
    num_before: int


def segment_in_bulk(
    pipeline: OMGSegPipeline,
    inputs: Iterable[tuple[str, Any]],
    out: str | Path,
    *,
    batch_size: int = 1,
    is_split: bool = False,
    on_done: Callable[[str, str | None], None] | None = None,
    **question: Any,
) -> BulkReport:
    """Write one line per input into the shards in `out`; `formats.shards.read_shards` reads them.

    inputs: (key, picture in any form that `read_picture` takes), read once, in any number; keys are unique, and all
    processes give the same inputs in the same order. is_split: each process gives other inputs, which are all its own.
    question: task, labels, threshold and options, as the pipeline takes them. on_done: called with the key of each
    finished input and what was wrong with it.
    Run again with the same `out`, under any number of processes, it does what is missing; inputs that failed are
    listed in failed-*.jsonl and tried again. ValueError: `out` holds results of another question or model, or another
    run is writing there; the processes do not share `out`.
    """
    state = join_processes(pipeline.device)
    request = pipeline.request(**question)
    space = request.label_space
    settings = {
        "task": request.head.spec.name,
        "labels": None if space is None else space.to_dict(),
        "options": {name: repr(value) for name, value in sorted(request.options.items())},
        "seen_classes": None if request.seen_classes is None else list(request.seen_classes),
        "model": model_fingerprint(pipeline.model),
    }
    folder = Path(out)
    before = prepare_together(folder, settings, state)
    own = _own_inputs(inputs, before, state, is_split=is_split)
    num_failed = num_done = 0
    with ShardWriter(folder, state.process_index) as shard:
        while batch := list(islice(own, batch_size)):
            outcomes = segment_each(pipeline, [picture for _, picture in batch], **question)
            for (key, _), (_, outcome) in zip(batch, outcomes, strict=True):
                if isinstance(outcome, Exception):
                    num_failed += 1
                    _note_failure(folder / f"failed-{state.process_index:05d}.jsonl", key, outcome)
                else:
                    num_done += 1
                    shard.add(key, outcome)
                if on_done is not None:
                    on_done(key, one_line(outcome) if isinstance(outcome, Exception) else None)
    return BulkReport(state.process_index, state.num_processes, num_done, num_failed, len(before))


def dataset_inputs(
    dataset: Any, *, image: str = "image", key: str | None = None
) -> tuple[Iterable[tuple[str, Any]], bool]:
    """The `inputs` and `is_split` for a `datasets` data set or stream.

    image: the column of pictures. key: a column of unique texts or numbers: a stream is then read in parts, one per
    process. None: the place in the stream is the key, and each process reads over what is not its own.
    """
    from datasets import Image
    from datasets.distributed import split_dataset_by_node

    names = dataset.column_names
    for column in (image, *([] if key is None else [key])):
        if names is not None and column not in names:
            raise ValueError(f"the data set has no column {column!r}: it has {', '.join(names)}")
    if dataset.features is not None and isinstance(dataset.features[image], Image):
        dataset = dataset.cast_column(image, Image(decode=False))  # what is done already is not decoded again
    if key is not None:
        state = join_processes()
        dataset = split_dataset_by_node(dataset, rank=state.process_index, world_size=state.num_processes)
    return _rows(dataset, image, key), key is not None


def segment_each(
    pipeline: OMGSegPipeline, pictures: Sequence[Any], **question: Any
) -> list[tuple[Any, Segments | Exception]]:
    """Per picture its pixels and the result, or None or its pixels and what was wrong; one cannot spoil the others."""
    read = [_attempt(read_picture, picture) for picture in pictures]
    good = [pixels for pixels in read if not isinstance(pixels, Exception)]
    answers: list[Segments] = []
    with contextlib.suppress(RuntimeError, ValueError):  # out of memory, say: then one by one
        answers = pipeline.segment(good, **question)
    waiting = iter(answers or [_attempt(_segment_one, pipeline, pixels, question) for pixels in good])
    return [(None, pixels) if isinstance(pixels, Exception) else (pixels, next(waiting)) for pixels in read]


def one_line(error: BaseException) -> str:
    """The message of an error without its line breaks."""
    return " ".join(str(error).split())


def _note_failure(path: Path, key: str, error: Exception) -> None:
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({"key": key, "error": one_line(error)}, ensure_ascii=False) + "\n")


def prepare_together(folder: Path, settings: dict[str, Any], state: PartialState) -> KeySet:
    """The keys that have a result in the folder. The main process looks after it, before anyone writes.

    settings: what the results answer. ValueError, in all processes, for a folder with answers to something else.
    """
    found: list[Any] = [None, None]
    if state.is_main_process:
        try:
            found = [_prepare(folder, settings), None]
        except (OSError, ValueError) as error:
            found = [None, one_line(error)]
    if state.num_processes > 1:
        broadcast_object_list(found)
    prepared, problem = found
    shares = problem is not None or _read_word(folder) == prepared[1]
    # All are asked at once: one process alone with an error would leave the others waiting for it.
    if not all(gather_object([shares]) if state.num_processes > 1 else [shares]):
        problem = f"the processes do not see the same folder {folder}: all nodes must share the output folder"
    if problem is not None:
        raise ValueError(problem)
    return KeySet(prepared[0])


def _prepare(folder: Path, settings: dict[str, Any]) -> tuple[Any, str]:
    """The digests of the keys that are done, and the word of this run."""
    folder.mkdir(parents=True, exist_ok=True)
    repair_shards(folder)
    path = folder / SETTINGS
    if not path.exists():
        if shard_paths(folder):
            raise ValueError(f"{folder} holds shards but no {SETTINGS}: choose another output folder")
        write_json(path, settings)
    there = json.loads(path.read_bytes())
    differing = [name for name, value in settings.items() if there.get(name) != value]
    if differing:
        raise ValueError(
            f"{folder} holds results of another {' and '.join(differing)}: two questions cannot share an output "
            "folder, choose another"
        )
    for old in folder.glob("failed-*.jsonl"):
        old.unlink()
    word = secrets.token_hex(8)
    write_bytes(folder / RUN, word.encode())
    return KeySet.of(shard_keys(folder)).digests, word


def _read_word(folder: Path) -> str:
    try:
        return (folder / RUN).read_text(encoding="ascii")
    except OSError:
        return ""


def _own_inputs(
    inputs: Iterable[tuple[str, Any]], before: KeySet, state: PartialState, *, is_split: bool
) -> Iterator[tuple[str, Any]]:
    """Every n-th of what is not done yet, so that all processes have as much to do, however the last run ended."""
    waiting = ((key, picture) for key, picture in inputs if key not in before)
    return waiting if is_split else islice(waiting, state.process_index, None, state.num_processes)


def _rows(dataset: Any, image: str, key: str | None) -> Iterator[tuple[str, Any]]:
    for position, row in enumerate(dataset):
        picture = row[image]
        if isinstance(picture, dict):  # an undecoded `datasets.Image`
            picture = picture["bytes"] if picture.get("bytes") is not None else picture["path"]
        yield str(position if key is None else row[key]), picture


def _segment_one(pipeline: OMGSegPipeline, pixels: Any, question: dict[str, Any]) -> Segments:
    return pipeline.segment([pixels], **question)[0]


def _attempt(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except (RuntimeError, ValueError, TypeError) as error:
        return error
