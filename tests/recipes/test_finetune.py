"""Fine-tuning on a folder of one's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from omg_transformers.labels import LabelSpace
from omg_transformers.model import OMGSegConfig, OMGSegModel
from omg_transformers.training.pretrained import random_vocabulary
from omg_transformers.training.results import export_model, make_processor

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes" / "finetune.py"


@pytest.fixture
def data(tmp_path):
    """Two splits of pictures with a disc on a ground, and their masks."""
    for split, count in (("train", 3), ("val", 1)):
        for kind in ("images", "masks"):
            (tmp_path / "data" / kind / split).mkdir(parents=True)
        for number in range(count):
            mask = np.zeros((40, 48), np.uint8)
            mask[10 : 20 + number, 12:30] = 1
            picture = np.where(mask[..., None] > 0, (200, 30, 30), (30, 90, 40)).astype(np.uint8)
            Image.fromarray(picture).save(tmp_path / "data" / "images" / split / f"{number}.png")
            Image.fromarray(mask).save(tmp_path / "data" / "masks" / split / f"{number}.png")
    (tmp_path / "data" / "classes.txt").write_text("meadow\ngizmo\n")
    return tmp_path / "data"


@pytest.fixture
def start(tmp_path):
    """A tiny random model that knows "meadow" only."""
    torch.manual_seed(0)
    space = LabelSpace.from_names(["meadow"], things=[])
    model = OMGSegModel(OMGSegConfig.tiny(label_spaces={"one": space.to_dict()}, default_task="semantic"))
    vocabulary = random_vocabulary([space], model.config.text_dim)
    processor = make_processor(model, vocabulary, (64, 64), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return export_model(tmp_path / "start", model, processor)


def finetune(*words):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, str(RECIPE), *map(str, words)]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_options_reach_the_reader(data, start, tmp_path):
    (data / "classes.txt").unlink()
    words = ("--start-from", start, "--output", tmp_path / "run", "--unknown-names", "new", "--dry-run")
    done = finetune(data, *words, "--options", "{names: [meadow, gadget]}")
    assert done.returncode == 0, done.stderr
    assert "gadget" in done.stdout
    assert "train: 3 samples, 2 classes" in done.stdout


def test_options_that_are_no_mapping_are_refused(data, start, tmp_path):
    done = finetune(data, "--start-from", start, "--output", tmp_path / "run", "--options", "names")
    assert done.returncode == 2
    assert "argument --options: 'names': expected a YAML mapping" in done.stderr


def test_a_dry_run_refuses_wrong_settings(data, start, tmp_path):
    words = ("--start-from", start, "--output", tmp_path / "run", "--unknown-names", "new", "--dry-run")
    done = finetune(data, *words, "batchsize=4", "optimizer.lr=1")
    assert done.returncode == 1
    assert "batch_size" in done.stderr and "optimizer.lr" in done.stderr


@pytest.mark.slow
def test_a_folder_of_ones_own_is_learned(data, start, tmp_path):
    output = tmp_path / "run"
    words = ("--start-from", start, "--output", output, "--unknown-names", "new", "--frozen", "backbone.")
    done = finetune(data, *words, "--max-steps", 2, "batch_size=2", "evaluate_every=2")
    assert done.returncode == 0, done.stderr
    report = (output / "report.txt").read_text()
    assert "mask_folder, split train: 3 samples, 2 classes" in report
    assert "does not know 1 names" in report and "gizmo" in report
    settings = yaml.safe_load((output / "finetune.yaml").read_text())
    assert (settings["mix"], settings["frozen"]) == ({"semantic": 1.0}, ["backbone."])
    old, new = (OMGSegModel.from_pretrained(folder).state_dict() for folder in (start, output / "model"))
    changed = {name.partition(".")[0] for name in old if not torch.equal(old[name], new[name])}
    assert changed and "backbone" not in changed
    assert "semantic/miou" in (output / "evaluations.jsonl").read_text()


@pytest.mark.slow
def test_names_that_the_model_does_not_know_end_it_before_any_work(data, start, tmp_path):
    done = finetune(data, "--start-from", start, "--output", tmp_path / "run")
    assert done.returncode == 1
    assert "gizmo" in done.stderr and "--unknown-names new" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
