"""Every kind of bad input that the project promises to refuse, from the user's side: a clear error, no work lost."""

from __future__ import annotations

import json
import pickle
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from omg_transformers.cli import main
from omg_transformers.inference import OMGSegPipeline
from omg_transformers.labels import LabelSpace, Vocabulary
from omg_transformers.model import OMGSegConfig, OMGSegModel
from omg_transformers.processing import OMGSegImageProcessor, OMGSegProcessor

NAMES = ["person", "grass"]


@pytest.fixture(scope="module")
def pipe() -> OMGSegPipeline:
    torch.manual_seed(0)
    model = OMGSegModel(OMGSegConfig.tiny(default_task="panoptic", logit_scale=5.0)).eval()
    vocabulary = Vocabulary.from_table(NAMES, torch.randn(2, 16))
    image_processor = OMGSegImageProcessor(size={"shortest_edge": 64, "longest_edge": 256})
    return OMGSegPipeline(
        model=model, processor=OMGSegProcessor(image_processor, LabelSpace.from_names(NAMES), vocabulary)
    )


@pytest.fixture(scope="module")
def saved(pipe, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture
def picture(tmp_path) -> Path:
    path = tmp_path / "picture.png"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def segment(picture: Path, model: Path, out: Path) -> int:
    return main(["segment", str(picture), "--model", str(model), "--out", str(out)])


def test_a_truncated_file(pipe, picture):
    picture.write_bytes(picture.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"picture\.png.*truncated"):
        pipe(picture)


def test_a_file_that_is_no_picture(pipe, picture):
    picture.write_text("hello")
    with pytest.raises(ValueError, match=r"picture\.png.*not a picture"):
        pipe(picture)


def test_a_file_of_0_bytes(pipe, picture):
    picture.write_bytes(b"")
    with pytest.raises(ValueError, match=r"picture\.png.*0 bytes"):
        pipe(picture)


@pytest.mark.parametrize("task", ["semantic", "instance", "panoptic"])
@pytest.mark.parametrize("size", [(1, 1), (10, 20000), (20000, 10)])
def test_extreme_pictures_are_segmented(pipe, size, task):
    answer = pipe(np.zeros((*size, 3), np.uint8), task=task)
    assert all(segment["mask"].size == (size[1], size[0]) for segment in answer)


def test_pixels_that_are_nan(pipe):
    with pytest.raises(ValueError, match="NaN"):
        pipe(np.full((8, 8, 3), np.nan))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_decompression_bomb(pipe, tmp_path):
    path = tmp_path / "bomb.png"
    Image.new("1", (11_000, 11_000)).save(path)
    assert path.stat().st_size < 30_000
    with pytest.raises(ValueError, match=r"bomb\.png.*limit.*max_pixels"):
        pipe(path)


def test_an_unknown_task(pipe, picture):
    with pytest.raises(LookupError, match="Did you mean 'semantic'"):
        pipe(picture, task="semantics")


@pytest.mark.parametrize("labels", [[], [""], ["dog", ""], ["dog|"]])
def test_empty_label_names(pipe, picture, labels):
    with pytest.raises(ValueError, match="empty"):
        pipe(picture, labels=labels)


@pytest.mark.parametrize("labels", [["dog", "dog"], ["dog", "Dog"], ["sofa|couch", "couch"]])
def test_duplicate_label_names(pipe, picture, labels):
    with pytest.raises(ValueError, match="repeats"):
        pipe(picture, labels=labels)


def test_labels_that_the_table_does_not_know(pipe, picture):
    with pytest.raises(ValueError, match=r"does not know 'gras'.*grass"):
        pipe(picture, labels=["gras"])


def test_wrong_target_sizes(pipe, picture):
    inputs = pipe.processor(picture)
    with torch.no_grad():
        outputs = pipe.model(**inputs)
    for sizes in ([], [(40, 60), (40, 60)], [(0, 60)], [40, 60], (40, 60)):
        with pytest.raises(ValueError, match="target_sizes"):
            pipe.processor.post_process(outputs, task="panoptic", target_sizes=sizes)


def test_a_checkpoint_with_missing_keys(saved, picture, tmp_path, capsys):
    model = tmp_path / "model"
    shutil.copytree(saved, model)
    weights = load_file(model / "model.safetensors")
    lost = next(iter(weights))
    save_file(
        {name: tensor for name, tensor in weights.items() if name != lost},
        model / "model.safetensors",
        {"format": "pt"},
    )
    assert segment(picture, model, tmp_path / "out") == 1
    assert lost in capsys.readouterr().err


def test_an_original_checkpoint_with_foreign_keys(tmp_path, capsys):
    torch.save({"state_dict": {"what.is.this": torch.zeros(1)}}, tmp_path / "foreign.pth")
    assert main(["convert", str(tmp_path / "foreign.pth"), "--out", str(tmp_path / "out")]) == 1
    assert "what.is.this" in capsys.readouterr().err


def test_a_missing_checkpoint(tmp_path, capsys):
    assert main(["convert", str(tmp_path / "no.pth"), "--out", str(tmp_path / "out")]) == 1
    assert "there is no checkpoint at" in capsys.readouterr().err


class _Attack:
    def __reduce__(self):
        return exec, ("raise SystemExit('code from the file was run')",)


def test_a_pickle_with_code_in_it(tmp_path, capsys):
    path = tmp_path / "attack.pth"
    path.write_bytes(pickle.dumps({"state_dict": _Attack()}))
    assert main(["convert", str(path), "--out", str(tmp_path / "out")]) == 1
    assert "refused" in capsys.readouterr().err
    torch.save({"state_dict": _Attack()}, path)
    assert main(["convert", str(path), "--out", str(tmp_path / "out")]) == 1
    assert "refused" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["file", "below a file"])
def test_an_output_folder_that_cannot_be(saved, picture, tmp_path, capsys, place):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" if place == "file" else tmp_path / "file" / "out"
    assert segment(picture, saved, out) == 1
    assert f"--out {out}" in capsys.readouterr().err


def test_an_output_folder_without_the_right_to_write(saved, picture, tmp_path, capsys):
    out = tmp_path / "locked"
    out.mkdir(mode=0o500)
    try:
        (out / "trial").touch()
        pytest.skip("this user may write everywhere")
    except PermissionError:
        pass
    assert segment(picture, saved, out) == 1
    assert "cannot write to --out" in capsys.readouterr().err


def test_a_disk_that_is_full_before_work_starts(saved, picture, tmp_path, capsys, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2**20))
    assert segment(picture, saved, tmp_path / "out") == 1
    assert "is full (1 MiB free)" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


def test_a_disk_that_fills_while_writing_leaves_no_half_file(saved, picture, tmp_path, capsys):
    """A limit on file size makes the kernel refuse the write, as a full disk does."""
    out = tmp_path / "out"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert segment(picture, saved, out) == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    Image.effect_noise((900, 900), 90).save(picture)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**17, hard))
    try:
        assert segment(picture, saved, out) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "picture.png: File too large" in capsys.readouterr().err
    assert set(before) == {path for path in out.rglob("*") if path.is_file()}
    assert (out / "overlays" / "picture.png").read_bytes() == before[out / "overlays" / "picture.png"]


@pytest.mark.slow
def test_one_bad_picture_among_a_hundred(saved, picture, tmp_path, capsys):
    folder, out = tmp_path / "hundred", tmp_path / "out"
    folder.mkdir()
    for index in range(100):
        shutil.copy(picture, folder / f"{index:03}.png")
    (folder / "057.png").write_bytes(b"\x89PNG but no more")
    assert main(["segment", str(folder), "--model", str(saved), "--out", str(out), "--batch-size", "25"]) == 1
    printed = capsys.readouterr()
    assert "99 of 100 pictures segmented" in printed.out
    assert printed.err.count("failed: ") == 1
    assert "057.png" in printed.err
    assert len(json.loads((out / "panoptic.json").read_text())["annotations"]) == 99
    assert len(list((out / "overlays").iterdir())) == 99
