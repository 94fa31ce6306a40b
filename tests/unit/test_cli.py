"""`omg-seg`: what it writes, how it answers mistakes, and its exit status."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from omg_transformers import formats
from omg_transformers.cli import main
from omg_transformers.cli.folders import find_pictures, unique_names
from omg_transformers.cli.question import read_labels
from omg_transformers.labels import LabelSpace, Vocabulary
from omg_transformers.model import OMGSegConfig, OMGSegModel
from omg_transformers.processing import OMGSegImageProcessor, OMGSegProcessor

NAMES = ["person", "dog", "grass", "sky"]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    OMGSegModel(OMGSegConfig.tiny(default_task="panoptic", logit_scale=5.0)).save_pretrained(folder)
    processor = OMGSegProcessor(
        OMGSegImageProcessor(size={"shortest_edge": 64}),
        LabelSpace.from_names(["person", "grass"]),
        Vocabulary.from_table(NAMES, torch.randn(4, 16)),
    )
    processor.save_pretrained(folder)
    return str(folder)


def save_picture(path: Path, height: int = 40, width: int = 60) -> Path:
    pixels = np.random.default_rng(height + width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("arguments", [["--help"], ["segment", "--help"], ["video", "--help"], ["--version"]])
def test_help_needs_neither_torch_nor_transformers(arguments):
    code = (
        "import sys\nfrom omg_transformers.cli import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "assert not {'torch', 'transformers', 'numpy', 'PIL'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_every_file_of_one_picture_is_written(model, tmp_path, capsys):
    picture = save_picture(tmp_path / "000000000139.jpg")
    out = tmp_path / "deep" / "out"
    assert main(["segment", str(picture), "--model", model, "--out", str(out)]) == 0
    files = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    name = "000000000139.png"
    assert files == [
        f"classes/{name}",
        "coco.json",
        "labels.json",
        f"overlays/{name}",
        "panoptic.json",
        f"panoptic/{name}",
    ]
    space = LabelSpace.from_dict(json.loads((out / "labels.json").read_text()))
    assert space.names == ("person", "grass")
    segments = formats.read_panoptic(out / "panoptic.json", space)[139]
    assert segments.size == (40, 60)
    np.testing.assert_array_equal(formats.read_class_png(out / "classes" / name), formats.class_map(segments))
    assert Image.open(out / "overlays" / name).size == (60, 40)
    things = [entry["id"] for entry in json.loads((out / "coco.json").read_text())]
    assert things == [
        i for i, label in zip(segments.ids.tolist(), segments.labels.tolist(), strict=True) if space.is_thing[label]
    ]
    assert "1 of 1 pictures segmented" in capsys.readouterr().out


def test_task_labels_and_threshold_are_used(model, tmp_path):
    picture = save_picture(tmp_path / "a.png")
    base = ["segment", str(picture), "--model", model, "--out", str(tmp_path), "--task", "instance"]
    assert main([*base, "--labels", "dog, person|grass"]) == 0
    assert json.loads((tmp_path / "labels.json").read_text())["classes"][1]["synonyms"] == ["grass"]
    entries = json.loads((tmp_path / "coco.json").read_text())
    assert entries
    assert not (tmp_path / "panoptic.json").exists()
    limit = entries[len(entries) // 2]["score"]
    assert main([*base, "--labels", "dog, person|grass", "--threshold", str(limit)]) == 0
    assert 0 < len(json.loads((tmp_path / "coco.json").read_text())) < len(entries)


def test_options_of_the_checkpoint_hold_on_the_command_line_too(model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "head_options": {"instance": {"max_per_image": 2}}}))
    picture = save_picture(tmp_path / "a.png")
    arguments = ["segment", str(picture), "--task", "instance", "--labels", "dog", "--out", str(tmp_path)]
    assert main([*arguments, "--model", str(folder)]) == 0
    assert len(json.loads((tmp_path / "coco.json").read_text())) == 2


def test_one_bad_picture_among_many_is_named_and_the_others_are_done(model, tmp_path, capsys):
    folder, out = tmp_path / "pictures", tmp_path / "out"
    folder.mkdir()
    for index in range(7):
        save_picture(folder / f"{index}.png", 30 + index, 40)
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:200])
    (folder / "notes.txt").write_text("no picture, and not meant as one")
    assert main(["segment", str(folder), "--model", model, "--out", str(out), "--batch-size", "3"]) == 1
    assert sorted(path.stem for path in (out / "overlays").iterdir()) == ["0", "1", "2", "4", "5", "6"]
    assert len(json.loads((out / "panoptic.json").read_text())["annotations"]) == 6
    printed = capsys.readouterr()
    assert "6 of 7 pictures segmented" in printed.out
    assert "failed: " in printed.err
    assert "3.png" in printed.err
    assert "truncated" in printed.err
    assert "picture/s" in printed.err  # the progress bar


def test_a_missing_picture_is_named_and_the_others_are_done(model, tmp_path, capsys):
    good = save_picture(tmp_path / "good.png")
    assert main(["segment", str(tmp_path / "no.png"), str(good), "--model", model, "--out", str(tmp_path / "out")]) == 1
    assert (tmp_path / "out" / "overlays" / "good.png").is_file()
    assert "no picture at" in capsys.readouterr().err


def test_results_of_an_earlier_run_are_replaced(model, tmp_path):
    picture = save_picture(tmp_path / "a.png")
    (tmp_path / "overlays").mkdir()
    (tmp_path / "overlays" / "a.png").write_text("old")
    (tmp_path / "coco.json").write_text("old")
    assert main(["segment", str(picture), "--model", model, "--out", str(tmp_path)]) == 0
    assert Image.open(tmp_path / "overlays" / "a.png").size == (60, 40)
    json.loads((tmp_path / "coco.json").read_text())
    assert not list(tmp_path.rglob(".*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "panoptik"], "Did you mean 'panoptic'"),
        (["--labels", "dog, dog"], "repeats"),
        (["--labels", ""], "empty"),
        (["--labels", "dog, unicorn"], "unicorn"),
        (["--labels", "coco_panoptik"], "coco_panoptic"),
        (["--task", "interactive"], "needs a prompt"),
        (["--device", "quantum"], "device quantum cannot be used"),
        (["--model", "nowhere/at/all"], "there is no model in 'nowhere/at/all'"),
    ],
)
def test_a_wrong_wish_is_one_line_and_status_1(model, tmp_path, capsys, arguments, message):
    picture = save_picture(tmp_path / "a.png")
    status = main(["segment", str(picture), "--model", model, "--out", str(tmp_path / "out"), *arguments])
    printed = capsys.readouterr().err
    assert status == 1
    assert printed.startswith("omg-seg: error: ")
    assert message in printed
    assert printed.count("\n") == 1
    assert not list((tmp_path / "out").rglob("*.png"))


def test_debug_shows_the_traceback(model, tmp_path):
    picture = save_picture(tmp_path / "a.png")
    with pytest.raises(LookupError, match="panoptik"):
        main(["segment", str(picture), "--model", model, "--out", str(tmp_path), "--task", "panoptik", "--debug"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["segmnt", "a.png"], "there is no command 'segmnt'.*Did you mean 'segment'"),
        (["segment"], "required: IMAGE|FOLDER"),
        (["segment", "a.png", "--threshold", "2"], "expected a score from 0 to 1"),
        (["segment", "a.png", "--batch-size", "0"], "expected 1 or more"),
        (["segment", "a.png", "--labls", "dog"], "unrecognized arguments"),
        (["convert", "a.pth"], "required: --out"),
    ],
)
def test_wrong_usage_is_status_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("omg-seg: error: ")


@pytest.fixture(scope="module")
def tower(tmp_path_factory) -> tuple[str, str]:
    """(a model whose trunk is an open_clip model's, the weights of that model), both tiny and random."""
    import open_clip

    folder = tmp_path_factory.mktemp("tower")
    description = {
        "embed_dim": 16,
        "vision_cfg": {"timm_model_name": "convnext_atto", "timm_model_pretrained": False, "timm_pool": "avg",
                       "timm_proj": "linear", "image_size": 64},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }  # fmt: skip
    (folder / "tiny_convnext_of_this_test.json").write_text(json.dumps(description))
    open_clip.add_model_config(folder / "tiny_convnext_of_this_test.json")
    torch.manual_seed(0)
    weights = open_clip.create_model("tiny_convnext_of_this_test", pretrained=None).state_dict()
    torch.save(weights, folder / "tower.pt")
    config = {"backbone_kind": "open_clip", "backbone_name": "tiny_convnext_of_this_test", "logit_scale": 5.0}
    OMGSegModel(OMGSegConfig.tiny(**config, default_task="semantic")).save_pretrained(folder / "model")
    space = LabelSpace.from_names(["person", "grass"])
    OMGSegProcessor(OMGSegImageProcessor(size={"shortest_edge": 64}), space).save_pretrained(folder / "model")
    return str(folder / "model"), str(folder / "tower.pt")


def test_with_a_text_tower_any_text_is_a_name(tower, tmp_path):
    picture, (model, weights) = save_picture(tmp_path / "a.png"), tower
    arguments = ["segment", str(picture), "--out", str(tmp_path), "--model", model, "--text-tower", weights]
    assert main([*arguments, "--labels", "a purple unicorn, the rest of the world"]) == 0
    space = LabelSpace.from_dict(json.loads((tmp_path / "labels.json").read_text()))
    assert space.names == ("a purple unicorn", "the rest of the world")
    assert (tmp_path / "classes" / "a.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--text-tower"),
        (["--text-tower", "laion5b"], "expected a file or one of none"),
        (["--text-tower", "WEIGHTS", "--labels", "word " * 80], "tokens"),
    ],
)
def test_what_a_text_tower_cannot_do_is_one_line(tower, tmp_path, capsys, arguments, message):
    picture, (model, weights) = save_picture(tmp_path / "a.png"), tower
    given = [weights if word == "WEIGHTS" else word for word in arguments]
    base = ["segment", str(picture), "--out", str(tmp_path / "out"), "--model", model, "--labels", "unicorn"]
    assert main([*base, *given]) == 1
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1


def test_a_text_tower_for_another_backbone_is_refused(model, tower, tmp_path, capsys):
    picture = save_picture(tmp_path / "a.png")
    arguments = ["segment", str(picture), "--model", model, "--text-tower", tower[1], "--out", str(tmp_path / "out")]
    assert main(arguments) == 1
    assert "needs a model with an open_clip backbone" in capsys.readouterr().err


def test_no_command_shows_the_help(capsys):
    assert main([]) == 2
    assert "segment pictures" in capsys.readouterr().out


def test_heads_are_listed(capsys):
    assert main(["heads"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("semantic", "instance", "panoptic", "interactive", "prompt"))


def test_the_doctor_names_versions_heads_and_devices(capsys):
    main(["doctor"])
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("torch", "transformers", "devices: cpu", "panoptic", "default model"))


def test_a_folder_is_listed_in_order_without_other_files(tmp_path):
    for name in ("b.PNG", "a.jpg", ".hidden.png", "notes.txt"):
        (tmp_path / name).touch()
    found = find_pictures([tmp_path, tmp_path / "a.jpg"], [".png", ".jpg"])
    assert [path.name for path in found] == ["a.jpg", "b.PNG"]


def test_a_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no picture"):
        find_pictures([tmp_path], [".png"])


def test_equal_names_get_a_number():
    assert unique_names([Path("x/a.png"), Path("y/a.jpg"), Path("A.png"), Path("b.png")]) == ["a", "a-2", "A-3", "b"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None), ("dog", ["dog"]), ("potted_plant", ["potted_plant"]), ("our_space", "our_space"),
        ("coco_panoptik", "coco_panoptik"), ("coco_panoptic", "coco_panoptic"), ("cityscapes", "cityscapes"),
        ("dog, sofa|couch", ["dog", "sofa|couch"]), ("sofa|couch", ["sofa|couch"]), ("a,,b", ["a", "", "b"]),
    ],
)  # fmt: skip
def test_labels_are_read_as_typed(text, expected):
    assert read_labels(text, ["our_space"]) == expected


def test_the_installed_command_is_there():
    program = Path(sys.executable).with_name("omg-seg")
    if not program.exists():
        pytest.skip("the package is not installed into this environment's bin folder")
    result = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, env=os.environ)
    assert result.stdout.startswith("omg-transformers ")
