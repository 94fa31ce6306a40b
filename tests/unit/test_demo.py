"""The demo shows every task on real pictures, with nothing but what is installed."""

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omg_transformers import default_checkpoint

PATH = Path(__file__).resolve().parents[2] / "examples" / "demo.py"
TASKS = ("semantic", "instance", "panoptic")

needs_default_model = pytest.mark.skipif(
    not (default_checkpoint() / "model.safetensors").is_file(), reason="the default model is not in this checkout"
)


@pytest.fixture(scope="module")
def demo():
    spec = importlib.util.spec_from_file_location("omg_demo", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(demo, tmp_path, monkeypatch):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["demo.py", *map(str, arguments), "--out", str(tmp_path / "out")])
        demo.main()
        return tmp_path / "out"

    return run


@pytest.fixture
def picture(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    return tmp_path / "noise.png"


def test_the_pictures_come_with_scikit_image(demo):
    pytest.importorskip("skimage", reason="scikit-image is not installed: pip install '.[demo]'")
    paths = demo.packaged_pictures()
    assert len(paths) == 4
    for path in paths.values():
        with Image.open(path) as opened:
            assert opened.mode == "RGB"
            assert min(opened.size) >= 300


@needs_default_model
def test_it_writes_one_overlay_per_task_and_an_overview(run, picture, capsys):
    folder = run(picture)
    expected = {"overview.png", "clip.png", *(f"noise_{task}.png" for task in (*TASKS, "click"))}
    assert {path.name for path in folder.iterdir()} == expected
    assert Image.open(folder / "noise_panoptic.png").size == (64, 48)
    printed = capsys.readouterr().out
    assert all(task in printed for task in TASKS)
    assert str(folder / "overview.png") in printed


@needs_default_model
def test_it_takes_names_of_the_users_choice(run, picture, capsys):
    run(picture, "--labels", "cat, sofa|couch")
    found = re.findall(r"^    (\w+) +\d+% ", capsys.readouterr().out, flags=re.MULTILINE)
    assert found
    assert set(found) <= {"cat", "sofa"}


@needs_default_model
def test_a_file_that_is_no_picture_is_named_before_any_work(run, picture, tmp_path):
    (tmp_path / "notes.png").write_text("no picture")
    with pytest.raises(SystemExit, match=r"notes\.png"):
        run(picture, tmp_path / "notes.png")
    assert not list((tmp_path / "out").glob("*.png"))


@needs_default_model
def test_it_shows_a_clip_of_the_users_choice(run, picture, tmp_path, capsys):
    frames = tmp_path / "frames"
    frames.mkdir()
    for number in range(3):
        Image.open(picture).save(frames / f"{number}.png")
    folder = run(picture, "--clip", frames)
    assert "3 frames of a clip" in capsys.readouterr().out
    assert Image.open(folder / "clip.png").size == (3 * 320, 240)
