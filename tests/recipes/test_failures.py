"""What breaks from outside: killed processes. Nothing that was saved is lost, nobody waits for ever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COTRAIN = [str(ROOT / "recipes" / "cotrain.py"), "--config", str(ROOT / "recipes" / "configs" / "tiny.yaml")]
WORDS = ["evaluation.0.num_samples=1", "evaluate_every=4", "save_every=3"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}


def start(*words, command=(sys.executable,)):
    return subprocess.Popen(
        [*command, *COTRAIN, *WORDS, *map(str, words)],
        env=ENVIRONMENT,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_step(process, output, step):
    file, deadline = output / "metrics.jsonl", time.monotonic() + 200
    while not file.exists() or file.read_text().count("\n") < step:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, "the run did not get there"
        time.sleep(0.02)


def children(pid):
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


@pytest.mark.slow
def test_killed_and_resumed_equals_a_straight_run(tmp_path):
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    with start("--output", straight, "--max-steps", 8) as run:
        printed, _ = run.communicate(timeout=300)
    assert run.returncode == 0, printed
    with start("--output", killed, "--max-steps", 8) as run:
        wait_for_step(run, killed, 5)
        run.send_signal(signal.SIGKILL)
    assert run.returncode == -signal.SIGKILL
    with start("--output", killed, "--max-steps", 8, "--resume") as run:
        printed, _ = run.communicate(timeout=300)
    assert run.returncode == 0, printed
    for name in ("metrics.jsonl", "evaluations.jsonl", "model/model.safetensors"):
        assert (killed / name).read_bytes() == (straight / name).read_bytes(), name


@pytest.mark.slow
def test_when_one_process_is_killed_the_others_stop_with_a_message(tmp_path):
    launcher = (sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2")
    output = tmp_path / "run"
    words = ("--output", output, "--max-steps", 100_000, "save_every=100000")
    with start(*words, command=(*launcher, "--main_process_port", "0")) as run:
        wait_for_step(run, output, 1)
        ranks = children(run.pid)
        assert len(ranks) == 2
        os.kill(ranks[1], signal.SIGKILL)
        began = time.monotonic()
        printed, _ = run.communicate(timeout=120)
        assert time.monotonic() - began < 60
    assert run.returncode != 0
    assert "Signal 9 (SIGKILL)" in printed or "another process of the run is gone" in printed
    assert not [rank for rank in ranks if Path(f"/proc/{rank}").exists()]
