"""Bulk work: each input exactly once, over several processes, through kills and resumes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from omg_transformers.cli import main
from omg_transformers.cli.folders import list_inputs
from omg_transformers.formats.shards import KeySet, ShardWriter, read_shards, repair_shards, shard_keys
from omg_transformers.inference import load_pipeline
from omg_transformers.inference.bulk import dataset_inputs, segment_in_bulk
from omg_transformers.labels import LabelSpace, Vocabulary
from omg_transformers.model import OMGSegConfig, OMGSegModel
from omg_transformers.processing import OMGSegImageProcessor, OMGSegProcessor
from omg_transformers.structures import Segments


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    OMGSegModel(OMGSegConfig.tiny(default_task="panoptic", logit_scale=5.0)).save_pretrained(folder)
    names = ["person", "grass"]
    vocabulary = Vocabulary.from_table(names, torch.randn(2, 16))
    space = LabelSpace.from_names(names)
    OMGSegProcessor(OMGSegImageProcessor(size={"shortest_edge": 32}), space, vocabulary).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def pipeline(model):
    return load_pipeline(model, device="cpu")


def picture(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (20, 30 + index % 3, 3), dtype=np.uint8)


def inputs(count: int) -> list[tuple[str, np.ndarray]]:
    return [(f"{index}.png", picture(index)) for index in range(count)]


def save_folder(folder: Path, count: int) -> Path:
    folder.mkdir()
    for index in range(count):
        Image.fromarray(picture(index)).save(folder / f"{index}.png")
    return folder


def empty_segments() -> Segments:
    return Segments((2, 3), torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long), torch.zeros(0), rles=())


def tear_last_line(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def test_results_are_the_pipelines_own(pipeline, tmp_path):
    report = segment_in_bulk(pipeline, iter(inputs(5)), tmp_path, batch_size=2, task="panoptic")
    assert (report.num_done, report.num_failed, report.num_before, report.num_processes) == (5, 0, 0, 1)
    found = dict(read_shards(tmp_path))
    expected = pipeline.segment([picture(index) for index in range(5)], task="panoptic")
    assert list(found) == [key for key, _ in inputs(5)]
    for segments, other in zip(found.values(), expected, strict=True):
        assert torch.equal(segments.id_map, other.id_map)
        assert torch.equal(segments.labels, other.labels)
        torch.testing.assert_close(segments.scores, other.scores)


def test_a_second_run_does_what_is_missing_and_mends_a_torn_line(pipeline, tmp_path):
    segment_in_bulk(pipeline, inputs(4), tmp_path)
    tear_last_line(tmp_path / "shard-00000.jsonl")
    report = segment_in_bulk(pipeline, inputs(7), tmp_path)
    assert (report.num_before, report.num_done) == (3, 4)
    assert sorted(key for key, _ in read_shards(tmp_path)) == sorted(key for key, _ in inputs(7))
    assert segment_in_bulk(pipeline, inputs(7), tmp_path).num_done == 0


def test_what_failed_is_named_and_tried_again_by_the_next_run(pipeline, tmp_path):
    broken = [*inputs(2), ("bad.png", b"no picture"), ("none.png", tmp_path / "none.png"), ("odd", object())]
    seen = []
    report = segment_in_bulk(
        pipeline, broken, tmp_path, batch_size=3, on_done=lambda key, problem: seen.append((key, problem is None))
    )
    assert (report.num_done, report.num_failed) == (2, 3)
    assert seen == [("0.png", True), ("1.png", True), ("bad.png", False), ("none.png", False), ("odd", False)]
    lines = [json.loads(line) for line in (tmp_path / "failed-00000.jsonl").read_text().splitlines()]
    assert [line["key"] for line in lines] == ["bad.png", "none.png", "odd"]
    assert "not a picture" in lines[0]["error"]
    report = segment_in_bulk(pipeline, [*inputs(2), ("bad.png", picture(7))], tmp_path)
    assert (report.num_before, report.num_done, report.num_failed) == (2, 1, 0)
    assert not list(tmp_path.glob("failed-*"))


@pytest.mark.parametrize(
    ("question", "differs"),
    [({"task": "semantic"}, "task"), ({"labels": ["grass"]}, "labels"), ({"threshold": 0.01}, "options")],
)
def test_another_question_into_the_same_folder_is_refused(pipeline, tmp_path, question, differs):
    segment_in_bulk(pipeline, inputs(1), tmp_path)
    with pytest.raises(ValueError, match=f"results of another .*{differs}"):
        segment_in_bulk(pipeline, inputs(2), tmp_path, **question)


def test_two_runs_at_once_are_refused(pipeline, tmp_path):
    pytest.importorskip("fcntl")
    with ShardWriter(tmp_path / ".", 0), pytest.raises(ValueError, match="written by another run"):
        segment_in_bulk(pipeline, inputs(1), tmp_path)


def test_a_datasets_stream_is_worked_off_by_place_or_by_key(pipeline, tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict(
        {"image": [Image.fromarray(picture(index)) for index in range(4)], "name": ["a", "b", "c", "d"]}
    )
    pairs, is_split = dataset_inputs(rows.to_iterable_dataset())
    assert not is_split
    segment_in_bulk(pipeline, pairs, tmp_path / "by_place")
    assert list(shard_keys(tmp_path / "by_place")) == ["0", "1", "2", "3"]
    pairs, is_split = dataset_inputs(rows, key="name")
    assert is_split
    segment_in_bulk(pipeline, pairs, tmp_path / "by_key", is_split=is_split)
    assert list(shard_keys(tmp_path / "by_key")) == ["a", "b", "c", "d"]
    first = next(iter(read_shards(tmp_path / "by_key")))[1]
    assert torch.equal(first.id_map, pipeline.segment([picture(0)])[0].id_map)
    with pytest.raises(ValueError, match="no column 'photo': it has image, name"):
        dataset_inputs(rows, image="photo")


def test_inputs_are_read_as_they_are_needed(pipeline, tmp_path):
    """A stream of any length: no more than one batch is read ahead."""
    taken = []

    def stream():
        for key, pixels in inputs(6):
            taken.append(key)
            yield key, pixels

    ahead = []
    segment_in_bulk(
        pipeline, stream(), tmp_path, batch_size=2, on_done=lambda key, _: ahead.append(len(taken) - int(key[0]) - 1)
    )
    assert max(ahead) <= 1


def test_a_key_set_knows_its_keys_and_no_others():
    keys = KeySet.of(f"key {index}" for index in range(1000))
    assert len(keys) == 1000
    assert all(f"key {index}" in keys for index in range(1000))
    assert not any(f"key {index}" in keys for index in range(1000, 3000))
    assert keys.digests.nbytes == 16_000
    assert "x" not in KeySet.of([])


def test_only_the_torn_line_is_removed(tmp_path):
    with ShardWriter(tmp_path, 3) as shard:
        for key in ("ä/1.png", 'quote".png', "third"):
            shard.add(key, empty_segments())
    path = tmp_path / "shard-00003.jsonl"
    whole = path.read_bytes()
    assert repair_shards(tmp_path) == 0
    for cut in (1, 20, len(whole.splitlines()[2])):
        path.write_bytes(whole[:-cut])
        assert list(shard_keys(tmp_path)) == ["ä/1.png", 'quote".png']
        assert repair_shards(tmp_path) == 1
        assert path.read_bytes() == b"".join(whole.splitlines(keepends=True)[:2])
    path.write_bytes(whole[:10])
    repair_shards(tmp_path)
    assert path.read_bytes() == b""


def test_a_shard_that_someone_edited_is_named(tmp_path):
    (tmp_path / "shard-00000.jsonl").write_text('{"size": [1, 1]}\n')
    with pytest.raises(ValueError, match=r"shard-00000\.jsonl, line 1 is not a result"):
        list(shard_keys(tmp_path))


def test_the_command_writes_shards_and_nothing_else(model, tmp_path, capsys):
    folder, out = save_folder(tmp_path / "pictures", 3), tmp_path / "out"
    assert main(["segment", str(folder), "--model", model, "--out", str(out), "--shards"]) == 0
    assert sorted(path.name for path in out.iterdir()) == [".run", "settings.json", "shard-00000.jsonl"]
    assert list(shard_keys(out)) == ["0.png", "1.png", "2.png"]
    assert "3 pictures segmented, 0 failed, 0 of 3 were done before" in capsys.readouterr().out
    (folder / "1.png").write_bytes(b"")
    assert main(["segment", str(folder), "--model", model, "--out", str(tmp_path / "new"), "--shards"]) == 1
    assert "failed: 1.png: " in capsys.readouterr().err


def test_a_list_is_relative_to_its_file_in_both_ways_of_working(model, tmp_path):
    save_folder(tmp_path / "pictures", 2)
    names = tmp_path / "list.txt"
    names.write_text("pictures/1.png\n\npictures/0.png\npictures/1.png\n")
    assert list_inputs(names, [".png"]) == [
        ("pictures/1.png", tmp_path / "pictures/1.png"),
        ("pictures/0.png", tmp_path / "pictures/0.png"),
    ]
    out = tmp_path / "out"
    assert main(["segment", str(names), "--model", model, "--out", str(out / "shards"), "--shards"]) == 0
    assert list(shard_keys(out / "shards")) == ["pictures/1.png", "pictures/0.png"]
    assert main(["segment", str(names), "--model", model, "--out", str(out / "files")]) == 0
    assert sorted(path.name for path in (out / "files" / "overlays").iterdir()) == ["0.png", "1.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["PICTURES", "PICTURES", "--shards"], "one folder or one list"),
        (["PICTURES", "--shards", "--legend"], "--legend"),
        (["EMPTY.txt", "--shards"], "is empty"),
        (["missing.txt", "--shards"], "there is no list"),
        (["PICTURES", "--shards", "--task", "interactive"], "needs a prompt"),
    ],
)
def test_a_wrong_wish_is_one_line(model, tmp_path, capsys, arguments, message):
    folder = save_folder(tmp_path / "PICTURES", 1)
    (tmp_path / "EMPTY.txt").write_text("\n \n")
    given = [
        str(folder.with_name(word)) if not word.startswith("--") and word[-1] in "St" else word for word in arguments
    ]
    assert main(["segment", *given, "--model", model, "--out", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1


def children_of(process: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def launch(arguments: list[str], num_processes: int) -> subprocess.Popen:
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--multi_gpu"]
    command += ["--num_processes", str(num_processes), "--main_process_port", "0", "-m", "omg_transformers"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [*command, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to find the launcher's processes")
def test_three_processes_killed_and_resumed_by_two_do_each_picture_exactly_once(model, tmp_path):
    folder, out = tmp_path / "pictures", tmp_path / "out"
    save_folder(folder, 3)
    for index in range(3, 600):
        os.link(folder / f"{index % 3}.png", folder / f"{index}.png")
    arguments = ["segment", str(folder), "--model", model, "--out", str(out)]
    first = launch(arguments, 3)

    def sizes() -> list[int]:
        return [path.read_bytes().count(b"\n") for path in sorted(out.glob("shard-*.jsonl"))]

    deadline = time.monotonic() + 400
    while not (len(sizes()) == 3 and min(sizes()) >= 5):
        assert first.poll() is None, first.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    workers = children_of(first.pid)
    for process in (first.pid, *workers):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    first.communicate()
    done_before = sum(sizes())
    assert 15 <= done_before < 600
    with (out / "shard-00002.jsonl").open("ab") as stream:
        stream.write(b'{"key": "torn.png", "size": [20,')
    second = launch(arguments, 2)
    printed = second.communicate(timeout=300)[0]
    assert second.returncode == 0, printed
    keys = Counter(key for key, _ in read_shards(out))
    assert keys == Counter(path.name for path in folder.iterdir())
    assert f"{done_before} of 600 were done before" in printed
    assert len(sizes()) == 3
