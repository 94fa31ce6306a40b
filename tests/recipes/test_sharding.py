"""Weights and moments shared out over two CPU processes (FSDP2): the same figures, and checkpoints for any run."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from omg_transformers.training.journal import read_journal

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
SHARDED = (
    *(sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(RECIPES / "launchers" / "fsdp2.yaml")),
    *("--num_processes", "2", "--main_process_port", "0"),
)
WORDS = ("--config", RECIPES / "configs" / "tiny_all_tasks.yaml", "--max-steps", 8, "save_every=4", "evaluate_every=8")


@pytest.fixture
def run(launch):
    def start(output, *words, command=(sys.executable,)):
        done = launch("--output", output, *WORDS, *words, command=command, ACCELERATE_USE_CPU="true")
        assert done.returncode == 0, done.stderr
        return output

    return start


def stopped_in_the_middle(whole, folder):
    shutil.copytree(whole, folder)
    for name in ("checkpoints/step_00000008", "model", "best"):
        shutil.rmtree(folder / name)
    return folder


def assert_close(found, expected):
    pairs = zip(read_journal(found / "metrics.jsonl"), read_journal(expected / "metrics.jsonl"), strict=True)
    for one, other in pairs:
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5), one["step"]
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4), one["step"]


@pytest.mark.slow
def test_shared_out_over_two_processes_a_run_does_what_one_process_does_and_both_go_on_from_its_checkpoints(
    run, tmp_path
):
    plain = run(tmp_path / "plain")
    whole = run(tmp_path / "whole", command=SHARDED)
    environment = yaml.safe_load((whole / "run.yaml").read_text())["environment"]
    assert (environment["processes"], environment["distributed_type"]) == (2, "FSDP")
    assert_close(whole, plain)
    assert len(read_journal(whole / "evaluations.jsonl")) == 8

    resumed = run(stopped_in_the_middle(whole, tmp_path / "resumed"), "--resume", command=SHARDED)
    for name in ("metrics.jsonl", "evaluations.jsonl", "model/model.safetensors"):
        assert (resumed / name).read_bytes() == (whole / name).read_bytes(), name
    assert_close(run(stopped_in_the_middle(whole, tmp_path / "to_plain"), "--resume"), whole)
    assert_close(run(stopped_in_the_middle(plain, tmp_path / "to_shared"), "--resume", command=SHARDED), plain)


@pytest.mark.slow
def test_a_sharded_step_in_parts_has_the_weights_of_the_whole(run, tmp_path):
    words = ("--max-steps", 2, "evaluation=[]", "ema_decay=null")
    one, parts = (run(tmp_path / str(n), *words, f"accumulate={n}", command=SHARDED) for n in (1, 2))
    assert_close(parts, one)
    first, second = (load_file(folder / "model" / "model.safetensors") for folder in (one, parts))
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=1e-4, atol=1e-6, msg=name)
