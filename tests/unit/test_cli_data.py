"""`omg-seg data`: what it prints and writes, how it answers mistakes, and its exit status."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from PIL import Image

from omg_transformers.cli import main
from omg_transformers.data import open_layout
from omg_transformers.data.writers import write_source

from .drawn_samples import SPACE, drawn_source


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("set") / "drawn"
    write_source(drawn_source(0, 5), "coco_instances", root, "train")
    write_source(drawn_source(5, 3), "coco_instances", root, "val")
    return root


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos") / "drawn"
    write_source(drawn_source(0, 2, 5), "youtube_vis", root, "train")
    return root


@pytest.fixture
def broken(folder, tmp_path):
    import shutil

    copy = shutil.copytree(folder, tmp_path / "broken")
    path = next((copy / "train").iterdir())
    path.write_bytes(path.read_bytes()[:100])
    return copy


def run(*words):
    return main(["data", *map(str, words)])


@pytest.mark.parametrize("command", ["detect", "check", "preview", "convert"])
def test_help_of_each_command_needs_no_torch(command):
    code = (
        "import sys\nfrom omg_transformers.cli import main\n"
        f"try:\n    main(['data', {command!r}, '--help'])\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "assert not {'torch', 'transformers', 'numpy', 'PIL'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_detect_names_layout_splits_classes_and_tasks(folder, capsys):
    assert run("detect", folder) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "coco_instances (COCO instances)"
    assert lines[1] == "  train: 5 samples, 6 classes: cat, dog, cup, car, grass, sky"
    assert lines[2].startswith("    serves instance, interactive")
    assert lines[3].startswith("  val: 3 samples")


def test_detect_prints_json(folder, capsys):
    assert run("detect", folder, "--json") == 0
    (layout,) = json.loads(capsys.readouterr().out)["layouts"]
    assert layout["kind"] == "coco_instances"
    assert [(split["split"], split["num_samples"], split["num_classes"]) for split in layout["splits"]] == [
        ("train", 5, 6),
        ("val", 3, 6),
    ]


def test_detect_of_a_folder_of_several_sets_names_each(tmp_path, capsys):
    write_source(drawn_source(0, 2, 3), "davis", tmp_path / "clips", "train")
    write_source(drawn_source(0, 2), "coco_instances", tmp_path / "drawn", "train")
    (tmp_path / "video").mkdir()
    (tmp_path / "video" / "1_manual.json").write_text('{"masklet": [], "video_id": "1"}')
    assert run("detect", tmp_path) == 0
    output = capsys.readouterr().out
    assert "folders in it fit other layouts" in output
    assert "  clips: davis\n  drawn: coco_instances\n" in output


def test_detect_of_one_set_names_no_others(folder, videos, capsys):
    for root in (folder, videos):
        assert run("detect", root) == 0
        assert "folders in it" not in capsys.readouterr().out


def test_detect_of_a_part_names_the_root(folder, capsys):
    assert run("detect", folder / "annotations") == 1
    output = capsys.readouterr().out
    assert "is in no known layout" in output
    assert f"{folder} fits coco_instances: give that folder" in output


def test_detect_of_strange_files_says_what_form_they_have(folder, tmp_path, capsys):
    source = folder / "annotations" / "instances_train.json"
    (tmp_path / "mine.json").write_bytes(source.read_bytes())
    assert run("detect", tmp_path) == 1
    assert "mine.json has the form of COCO instances" in capsys.readouterr().out


def test_detect_of_half_a_layout_says_what_is_missing(tmp_path, capsys):
    masks = tmp_path / "panomasks" / "one"
    masks.mkdir(parents=True)
    Image.new("L", (4, 4)).save(masks / "0.png")
    assert run("detect", tmp_path) == 1
    assert "vipseg (found panomasks/*/*.png; missing imgs/*/*.jpg)" in capsys.readouterr().out


def test_detect_names_the_picture_that_a_file_without_pictures_lists(folder, tmp_path, capsys):
    source = folder / "annotations" / "instances_train.json"
    (tmp_path / "result.json").write_bytes(source.read_bytes())
    name = json.loads(source.read_text())["images"][0]["file_name"]
    assert run("detect", tmp_path) == 1
    assert f"its first picture is called {name}" in capsys.readouterr().out


def test_detect_of_boxes_says_that_masks_need_polygons(tmp_path, capsys):
    (tmp_path / "images/train").mkdir(parents=True)
    (tmp_path / "labels/train").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "images/train/a.jpg")
    (tmp_path / "labels/train/a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    assert run("detect", tmp_path) == 1
    assert "labels/train/a.txt holds boxes (class x y width height)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("mask", "message"), [("a_seg.png", "share no name: a.jpg, a_seg.png"), ("a.jpg", "JPEG, which blurs ids")]
)
def test_detect_of_masks_that_do_not_fit_says_why(tmp_path, capsys, mask, message):
    for place, name in (("images", "a.jpg"), ("masks", mask)):
        (tmp_path / place).mkdir()
        Image.new("L", (4, 4)).save(tmp_path / place / name)
    assert run("detect", tmp_path) == 1
    assert message in capsys.readouterr().out


def test_detect_of_an_archive_asks_to_unpack_it(tmp_path, capsys):
    (tmp_path / "set.ZIP").write_bytes(b"PK")
    assert run("detect", tmp_path / "set.ZIP") == 1
    assert "set.ZIP is no folder but an archive: unpack it" in capsys.readouterr().err
    assert run("detect", tmp_path) == 1
    assert "Unpack set.ZIP" in capsys.readouterr().out


def test_detect_of_a_file_names_its_folder(folder, capsys):
    assert run("detect", folder / "annotations" / "instances_train.json") == 1
    assert "instances_train.json is no folder but a file: give the root" in capsys.readouterr().err


def test_detect_of_pictures_alone_says_that_nothing_annotates_them(tmp_path, capsys):
    Image.new("L", (4, 4)).save(tmp_path / "a.jpg")
    assert run("detect", tmp_path) == 1
    assert "nothing here annotates them" in capsys.readouterr().out


def test_check_of_a_sound_set_returns_0(folder, tmp_path, capsys):
    assert run("check", folder, "--out", tmp_path / "out") == 0
    assert "can be used" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.md", "report.json", "pictures"}


def test_check_returns_1_for_errors_and_names_the_file(broken, capsys):
    assert run("check", broken, "--split", "train") == 1
    output = capsys.readouterr().out
    assert "broken_file" in output
    assert ".png" in output.split("broken_file")[1]


def test_warnings_fail_only_when_strict(folder, tmp_path):
    import shutil

    copy = shutil.copytree(folder, tmp_path / "copy")
    path = copy / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    content["annotations"][2]["area"] = 9
    path.write_text(json.dumps(content))
    assert run("check", copy) == 0
    assert run("check", copy, "--strict") == 1


def test_check_prints_json(folder, capsys):
    assert run("check", folder, "--json", "--limit", "2") == 0
    report = json.loads(capsys.readouterr().out)
    assert [split["num_usable"] for split in report["splits"]] == [2, 2]
    assert "few_samples_checked" in [entry["kind"] for entry in report["kinds"]]


def test_check_reads_into_a_built_in_label_space(folder, capsys):
    assert run("check", folder, "--label-space", "coco_panoptic", "--split", "val", "--json") == 0
    (split,) = json.loads(capsys.readouterr().out)["splits"]
    assert split["label_space"] == "coco_panoptic"


def test_check_reads_into_a_label_space_of_a_file(folder, tmp_path, capsys):
    assert run("convert", folder, "--to", "coco_panoptic", "--out", tmp_path / "panoptic") == 0
    path = tmp_path / "space.json"
    path.write_text(json.dumps(SPACE.to_dict()))
    capsys.readouterr()
    assert run("check", tmp_path / "panoptic", "--label-space", path, "--kind", "coco_panoptic", "--json") == 0
    assert [split["label_space"] for split in json.loads(capsys.readouterr().out)["splits"]] == ["drawn", "drawn"]


def test_preview_draws_pictures_and_clips(folder, videos, tmp_path):
    assert run("preview", folder, "--num", "3", "--out", tmp_path / "pictures.png") == 0
    assert run("preview", videos, "--out", tmp_path / "clips.png") == 0
    with Image.open(tmp_path / "pictures.png") as sheet:
        assert sheet.size[0] > 3 * 320
    with Image.open(tmp_path / "clips.png") as sheet:
        assert sheet.size[0] > 4 * 240


def test_preview_draws_the_rest_when_one_sample_is_bad(broken, tmp_path, capsys):
    assert run("preview", broken, "--out", tmp_path / "sheet.png") == 1
    assert "cannot be shown" in capsys.readouterr().out
    assert (tmp_path / "sheet.png").is_file()


def test_convert_writes_all_splits_and_says_what_is_lost(folder, tmp_path, capsys):
    out = tmp_path / "yolo"
    assert run("convert", folder, "--to", "yolo_seg", "--out", out) == 0
    output = capsys.readouterr().out
    assert "train: 5 samples, 5 pictures, 10 segments as yolo_seg" in output
    assert "not held: 10 stuff segments were left out" in output
    assert open_layout("yolo_seg", out, "val").num_samples == 3


def test_convert_refuses_a_split_that_is_there_before_any_work(folder, tmp_path, capsys):
    (tmp_path / "images" / "val").mkdir(parents=True)
    (tmp_path / "images" / "val" / "mine.jpg").write_bytes(b"mine")
    assert run("convert", folder, "--to", "yolo_seg", "--out", tmp_path) == 1
    assert "is there already" in capsys.readouterr().err
    assert not (tmp_path / "images" / "train").exists()


def test_convert_leaves_bad_samples_out_on_request(broken, tmp_path, capsys):
    assert run("convert", broken, "--to", "coco_panoptic", "--out", tmp_path / "one") == 1
    assert run("convert", broken, "--to", "coco_panoptic", "--out", tmp_path / "two", "--skip-bad") == 1
    assert "left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["check", "nowhere"], "nowhere is no folder"),
        (["check", "DIR", "--kind", "coco"], "does not look like 'coco': it fits coco_instances"),
        (["check", "DIR", "--split", "trian"], "did you mean train"),
        (["check", "DIR", "--label-space", "no_such"], "no_such"),
        (["preview", "DIR", "--out", "sheet.jpg"], "expected a name that ends with .png"),
        (["preview", "DIR", "--option", "names"], "expected NAME=VALUE"),
    ],
)
def test_mistakes_are_answered_in_one_line(folder, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert run(*(folder if word == "DIR" else word for word in words)) == 1
    error = capsys.readouterr().err.strip().splitlines()
    assert message in error[-1]


def test_a_missing_command_is_wrong_usage(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["data"])
    assert stop.value.code == 2
    assert "COMMAND" in capsys.readouterr().err
