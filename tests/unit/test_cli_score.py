"""`omg-seg score`: seven tasks on files, what it prints and writes, and how it answers mistakes."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from omg_transformers.cli import main
from omg_transformers.cli.score import TASKS


def score(task, truth, prediction, *options):
    return main(["score", "--task", task, "--gt", str(truth), "--pred", str(prediction), *map(str, options)])


def results_of(folder):
    return json.loads((folder / "results.json").read_text())


def rows_of(folder):
    with (folder / "per_class.csv").open(newline="") as file:
        return {row["class"]: row for row in csv.DictReader(file)}


def rle(mask):
    coded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(coded["size"]), "counts": coded["counts"].decode()}


def box_mask(left, size=(20, 30)):
    mask = np.zeros(size, bool)
    mask[3:13, left : left + 10] = True
    return mask


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def panoptic(shared_data, tmp_path):
    """The truth of the panopticapi sample, and a copy of it that lacks a person and takes the sky for grass."""
    truth = shared_data / "panopticapi_sample/panoptic_examples.json"
    content = json.loads(truth.read_text())
    categories = {category["name"]: category["id"] for category in content["categories"]}
    folder = tmp_path / "panoptic"
    folder.mkdir()
    for annotation in content["annotations"]:
        name = annotation["file_name"]
        rgb = np.array(Image.open(truth.with_suffix("") / name))
        ids = rgb.astype(int) @ [1, 256, 65536]
        person = next(s for s in annotation["segments_info"] if s["category_id"] == categories["person"])
        annotation["segments_info"].remove(person)
        rgb[ids == person["id"]] = 0
        for segment in annotation["segments_info"]:
            if segment["category_id"] == categories["sky-other-merged"]:
                segment["category_id"] = categories["grass-merged"]
        save(folder / name, rgb)
    del content["categories"]
    (tmp_path / "panoptic.json").write_text(json.dumps(content))
    return truth, tmp_path / "panoptic.json"


@pytest.fixture
def instances(tmp_path):
    truth = {
        "images": [{"id": 1, "height": 20, "width": 30}, {"id": 2, "height": 20, "width": 30}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 3, "area": 100, "bbox": [2, 3, 10, 10],
             "segmentation": rle(box_mask(2)), "iscrowd": 0},
        ],
    }  # fmt: skip
    found = [{"image_id": 1, "category_id": 3, "score": 0.9, "segmentation": rle(box_mask(3))}]
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "found.json").write_text(json.dumps(found))
    return tmp_path / "truth.json", tmp_path / "found.json"


@pytest.fixture
def tracks(tmp_path):
    truth = {
        "videos": [{"id": 1, "height": 20, "width": 30, "length": 3}],
        "categories": [{"id": 4, "name": "bird"}],
        "annotations": [
            {"id": 1, "video_id": 1, "category_id": 4, "segmentations": [rle(box_mask(i)) for i in (1, 2, 3)]}
        ],
    }
    found = [{"video_id": 1, "category_id": 4, "score": 0.8, "segmentations": [rle(box_mask(i)) for i in (1, 2, 4)]}]
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "found.json").write_text(json.dumps(found))
    return tmp_path / "truth.json", tmp_path / "found.json"


def change(path, edit):
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


class TestHelp:
    def test_it_shows_files_and_an_example_of_each_task(self, capsys):
        with pytest.raises(SystemExit):
            main(["score", "--help"])
        text = capsys.readouterr().out
        for name, task in TASKS.items():
            assert f"\n{name}: {task.figures}" in text
            assert f"$ omg-seg score --task {name} --gt" in text
        assert len(TASKS) == 7

    def test_the_command_imports_nothing_heavy_before_it_runs(self):
        code = "import sys, omg_transformers.cli.score; print(*sys.modules)"
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        assert not {"torch", "numpy", "PIL", "pycocotools", "tqdm"} & set(found)

    def test_examples_are_commands_that_the_parser_takes(self):
        from omg_transformers.cli import build_parser

        for name, task in TASKS.items():
            assert build_parser().parse_args(task.example.split()[1:]).task == name


class TestWrongUsage:
    def test_an_unknown_task_names_the_nearest(self, capsys):
        with pytest.raises(SystemExit) as stop:
            score("panoptik", "a", "b")
        assert stop.value.code == 2
        assert "there is no task 'panoptik'" in (text := capsys.readouterr().err)
        assert "did you mean 'panoptic'?" in text

    def test_an_option_of_another_task_is_refused(self, capsys):
        assert score("panoptic", "a", "b", "--windows", 1) == 1
        assert (
            "--windows does nothing for --task panoptic: it is an option of video_panoptic" in capsys.readouterr().err
        )

    @pytest.mark.parametrize("task", ["panoptic", "instance", "video_instance"])
    def test_a_folder_in_place_of_a_json_file_says_what_it_holds(self, task, tmp_path, capsys):
        save(tmp_path / "truth/a.png", [[1]])
        assert score(task, tmp_path / "truth", tmp_path / "truth") == 1
        assert "--gt " in (text := capsys.readouterr().err)
        assert "is a folder with 1 .png: expected a " in text

    @pytest.mark.parametrize("task", ["semantic", "video_semantic", "video_object"])
    def test_a_json_file_in_place_of_a_folder_is_refused(self, task, tmp_path, capsys):
        (tmp_path / "truth.json").write_text("{}")
        options = ["--num-classes", 3] if "semantic" in task else []
        assert score(task, tmp_path / "truth.json", tmp_path, *options) == 1
        assert "is a file (.json): expected " in capsys.readouterr().err

    def test_semantic_tasks_need_the_number_of_classes(self, tmp_path, capsys):
        assert score("semantic", tmp_path, tmp_path) == 1
        assert "--task semantic needs --num-classes, or --label-space" in capsys.readouterr().err
        assert score("semantic", tmp_path, tmp_path, "--label-space", "ade20k", "--num-classes", 3) == 1
        assert "label space ade20k has 150 classes" in capsys.readouterr().err

    def test_an_output_folder_that_cannot_be_made_stops_before_the_work(self, tmp_path, capsys):
        (tmp_path / "out").write_text("")
        assert score("semantic", tmp_path, tmp_path, "--num-classes", 3, "--out", tmp_path / "out") == 1
        assert "is a file, not a folder" in capsys.readouterr().err


class TestPanoptic:
    def test_the_sample_against_itself_is_perfect(self, panoptic, tmp_path, capsys):
        assert score("panoptic", panoptic[0], panoptic[0], "--out", tmp_path / "out") == 0
        assert "pq          100.00" in capsys.readouterr().out
        results = results_of(tmp_path / "out")
        assert results["figures"]["pq"] == 1.0
        assert results["num_samples"] == 2
        assert {"versions", "command", "date", "seconds", "peak_memory_mb", "settings"} <= results.keys()

    def test_a_damaged_copy_counts_what_was_damaged(self, panoptic, tmp_path):
        assert score("panoptic", *panoptic, "--boundary", "--out", tmp_path / "out") == 0
        rows = rows_of(tmp_path / "out")
        assert rows["person"]["fn"] == "2"
        assert (rows["sky-other-merged"]["pq"], rows["grass-merged"]["fp"]) == ("0.0", "2")
        assert rows["bicycle"]["pq"] == ""
        figures = results_of(tmp_path / "out")["figures"]
        assert 0 < figures["boundary_pq"] <= figures["pq"] < 1

    def test_superfluous_pictures_and_files_are_listed(self, panoptic, tmp_path, capsys):
        change(panoptic[1], lambda c: c["annotations"].append({**c["annotations"][0], "image_id": 99}))
        save(panoptic[1].with_suffix("") / "more.png", np.zeros((2, 2, 3)))
        assert score("panoptic", *panoptic) == 0
        text = capsys.readouterr().out
        assert "1 predictions left out" in text
        assert "1 PNGs left out, no scored picture has more" in text

    def test_a_missing_png_stops_before_the_first_is_read(self, panoptic, capsys):
        paths = sorted(panoptic[1].with_suffix("").iterdir())
        paths[0].write_bytes(b"broken")
        paths[1].unlink()
        assert score("panoptic", *panoptic) == 1
        assert "lacks 1 of 2 PNGs that the JSON file names, first 000000439180.png" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("edit", "message"),
        [
            (lambda c: c["annotations"].pop(), "has no prediction for 1 of 2 pictures"),
            (lambda c: c["annotations"].append(c["annotations"][0]), "occurs twice"),
            (lambda c: c["annotations"][0]["segments_info"][0].update(category_id=9999), "unknown category_id 9999"),
            (lambda c: c["annotations"][0]["segments_info"].pop(), "which segments_info does not list"),
            (lambda c: c.pop("annotations"), "has no list `annotations`"),
        ],
    )
    def test_predictions_that_do_not_fit_are_refused(self, panoptic, capsys, edit, message):
        change(panoptic[1], edit)
        assert score("panoptic", *panoptic) == 1
        assert message in capsys.readouterr().err


class TestInstance:
    def test_every_kind_of_overlap_has_its_figures(self, instances, tmp_path):
        kinds = ["--iou-type", "segm", "--iou-type", "bbox", "--iou-type", "boundary"]
        assert score("instance", *instances, *kinds, "--out", tmp_path / "out") == 0
        figures = results_of(tmp_path / "out")["figures"]
        # The boxes share 90 of 110 pixels.
        assert figures["ap50"] == figures["bbox_ap50"] == pytest.approx(1.0)
        assert figures["ap"] == pytest.approx(0.7)
        assert "boundary_ap" in figures
        assert list(rows_of(tmp_path / "out")) == ["cat", "dog"]
        assert results_of(tmp_path / "out")["notes"] == ["1 of 2 samples have no result"]

    def test_the_coco_truth_as_results_is_perfect(self, shared_data, tmp_path):
        truth = shared_data / "coco/annotations/instances_val2017.json"
        annotations = json.loads(truth.read_text())["annotations"]
        found = [
            {"image_id": row["image_id"], "category_id": row["category_id"], "score": 0.5,
             "segmentation": row["segmentation"]}
            for row in annotations
            if not row["iscrowd"] and isinstance(row["segmentation"], dict)
        ]  # fmt: skip
        assert len(found) > 400
        (tmp_path / "found.json").write_text(json.dumps(found))
        assert score("instance", truth, tmp_path / "found.json", "--out", tmp_path / "out") == 0
        assert results_of(tmp_path / "out")["figures"]["ap"] == pytest.approx(1.0)

    def test_no_results_score_zero(self, instances, tmp_path):
        instances[1].write_text("[]")
        assert score("instance", *instances, "--out", tmp_path / "out") == 0
        assert results_of(tmp_path / "out")["figures"]["ap"] == 0

    def test_results_of_unknown_categories_are_listed(self, instances, capsys):
        change(instances[1], lambda rows: rows.append({**rows[0], "category_id": 55}))
        assert score("instance", *instances) == 0
        assert "1 results of category 55" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("edit", "message"),
        [
            (lambda row: row.update(score=float("nan")), "result 0 (image 1, category 3): score is nan"),
            (lambda row: row.update(image_id=44), "has no image 44"),
            (lambda row: row["segmentation"].update(counts=row["segmentation"]["counts"][:-2]), "result 0 (image 1"),
        ],
    )
    def test_results_that_do_not_fit_are_refused(self, instances, capsys, edit, message):
        change(instances[1], lambda rows: edit(rows[0]))
        assert score("instance", *instances) == 1
        assert message in capsys.readouterr().err

    def test_sides_of_another_kind_are_named(self, instances, panoptic, capsys):
        assert score("instance", instances[1], instances[1]) == 1
        assert "holds a list of 1 entries" in capsys.readouterr().err
        assert score("instance", instances[0], instances[0]) == 1
        assert "holds an object with images, categories, annotations: expected a JSON list" in capsys.readouterr().err
        assert score("instance", panoptic[0], instances[1]) == 1
        assert "holds panoptic annotations (segments_info)" in capsys.readouterr().err


class TestSemantic:
    def test_camvid_folders_with_a_label_space_of_ones_own(self, shared_data, tmp_path, capsys):
        truth = shared_data / "CamVid/testannot"
        for path in truth.iterdir():
            values = np.array(Image.open(path))
            values[:180] = np.where(values[:180] == 0, 1, values[:180])  # the upper sky is taken for buildings
            save(tmp_path / "found" / path.name, values)
        assert score("semantic", truth, tmp_path / "found", "--num-classes", 11, "--out", tmp_path / "out") == 0
        rows = rows_of(tmp_path / "out")
        assert float(rows["0"]["iou"]) < float(rows["1"]["iou"]) < 1
        assert rows["7"]["iou"] == ""
        assert {float(rows[str(label)]["iou"]) for label in (2, 3, 4, 5, 6, 8, 9, 10)} == {1.0}
        assert "value 11, which is none of the classes: they are left out" in capsys.readouterr().out

    def test_classes_have_the_names_of_the_label_space(self, tmp_path):
        save(tmp_path / "truth/a.png", [[0, 1, 2, 150]])
        save(tmp_path / "found/a.png", [[5, 0, 1, 149]])
        sides = tmp_path / "truth", tmp_path / "found"
        options = ["--label-space", "ade20k", "--reduce-labels", "--out", tmp_path / "out"]
        assert score("semantic", *sides, *options) == 0
        assert results_of(tmp_path / "out")["figures"]["miou"] == 1.0
        assert rows_of(tmp_path / "out")["wall"]["iou"] == "1.0"

    def test_a_label_space_may_be_a_file(self, tmp_path):
        from omg_transformers.labels import LabelSpace

        (tmp_path / "labels.json").write_text(json.dumps(LabelSpace.from_names(["hay", "cow"]).to_dict()))
        save(tmp_path / "truth/a.png", [[0, 1]])
        options = ["--label-space", tmp_path / "labels.json", "--out", tmp_path / "out"]
        assert score("semantic", tmp_path / "truth", tmp_path / "truth", *options) == 0
        assert list(rows_of(tmp_path / "out")) == ["hay", "cow"]


class TestVideos:
    def test_tracks(self, tracks, tmp_path):
        assert score("video_instance", *tracks, "--out", tmp_path / "out") == 0
        # 290 of 310 pixels are shared.
        assert results_of(tmp_path / "out")["figures"]["ap"] == pytest.approx(0.9)
        assert rows_of(tmp_path / "out")["bird"].keys() >= {"ap", "ap50", "ap75", "ar100"}

    def test_tracks_longer_than_their_video_are_refused_shorter_ones_noted(self, tracks, capsys):
        change(tracks[1], lambda rows: rows[0]["segmentations"].pop())
        assert score("video_instance", *tracks) == 0
        assert "list fewer frames" in capsys.readouterr().out
        change(tracks[1], lambda rows: rows[0]["segmentations"].extend([None, None]))
        assert score("video_instance", *tracks) == 1
        assert "has 4 frames, its video 3" in capsys.readouterr().err

    def test_semantic_videos(self, tmp_path, capsys):
        for video, length in (("long", 10), ("one", 1)):
            for frame in range(length):
                save(tmp_path / f"truth/{video}/mask/{frame}.png", np.eye(4))
                save(tmp_path / f"found/{video}/{frame}.png", np.eye(4) * (frame < 9))
        sides = tmp_path / "truth", tmp_path / "found"
        assert score("video_semantic", *sides, "--num-classes", 2, "--out", tmp_path / "out") == 0
        results = results_of(tmp_path / "out")
        assert results["figures"]["mvc8"] == 1.0
        assert results["figures"]["mvc16"] is None
        assert results["videos"]["long"] == {"frames": 10, "vc8": 1.0, "clips8": 2, "vc16": None, "clips16": 0}
        assert results["videos"]["one"]["vc8"] is None
        assert "one: 1 frames, mvc8 needs more than 8" in capsys.readouterr().out

    def test_vipseg_damaged_and_a_split_file(self, shared_data, tmp_path):
        root = shared_data / "VIPSeg_from_camvid"
        truth, folder = (tmp_path / side / "0016E5_a" for side in ("truth", "found"))
        for side in (truth, folder):
            side.mkdir(parents=True)
        for index, path in enumerate(sorted((root / "panomasks/0016E5_a").iterdir())[:8]):
            shutil.copy(path, truth)
            ids = np.array(Image.open(path)).astype(np.uint16)
            if index >= 4:  # half way, every thing gets a new number
                ids[ids >= 125] += 40
            Image.fromarray(ids).save(folder / path.name)
        options = ["--windows", 1, 2, "--videos", root / "val.txt", "--out", tmp_path / "out"]
        options += ["--categories", root / "panoVIPSeg_categories.json"]
        assert score("video_panoptic", truth.parent, tmp_path / "found", *options) == 0
        figures = results_of(tmp_path / "out")["figures"]
        assert figures["vpq_1"] == 1.0
        assert figures["vpq_2_stuff"] == 1.0
        assert 0.8 < figures["vpq_2_things"] < 1
        assert figures["sq"] == 1.0
        assert figures["aq"] < 0.9
        assert list(results_of(tmp_path / "out")["videos"]) == ["0016E5_a"]

    def test_davis_folders_perfect_and_damaged(self, shared_data, tmp_path):
        truth = shared_data / "DAVIS/Annotations/480p"
        names = sorted(path.name for path in (truth / "dogs-jump").iterdir())[:5]
        for name in names:
            image = Image.open(truth / "dogs-jump" / name)
            for side in ("truth", "found"):
                (tmp_path / side / "dogs-jump").mkdir(parents=True, exist_ok=True)
                image.save(tmp_path / side / "dogs-jump" / name)
        sides = tmp_path / "truth", tmp_path / "found"
        (tmp_path / "val.txt").write_text("dogs-jump\n")
        options = ["--videos", tmp_path / "val.txt", "--out", tmp_path / "out"]
        assert score("video_object", *sides, *options) == 0
        assert results_of(tmp_path / "out")["figures"]["j_and_f"] == 1.0
        assert list(rows_of(tmp_path / "out")) == ["dogs-jump_1", "dogs-jump_2", "dogs-jump_3"]
        damaged = Image.open(tmp_path / "found/dogs-jump" / names[2])
        damaged.point(lambda value: 0 if value == 2 else value).save(tmp_path / "found/dogs-jump" / names[2])
        assert score("video_object", *sides, *options) == 0
        rows = rows_of(tmp_path / "out")
        assert [rows[f"dogs-jump_{number}"]["j_mean"] for number in (1, 3)] == ["1.0", "1.0"]
        assert float(rows["dogs-jump_2"]["j_mean"]) == pytest.approx(2 / 3)
        assert score("video_object", *sides, *options, "--protocol", "unsupervised") == 0
        assert float(rows_of(tmp_path / "out")["dogs-jump_2"]["j_mean"]) == pytest.approx(4 / 5)

    def test_split_files_without_names_or_with_repeated_ones_are_refused(self, tmp_path, capsys):
        (tmp_path / "val.txt").write_text("a\nb\na\n")
        assert score("video_object", tmp_path, tmp_path, "--videos", tmp_path / "val.txt") == 1
        assert "names twice: a" in capsys.readouterr().err
        (tmp_path / "val.txt").write_text("")
        assert score("video_object", tmp_path, tmp_path, "--videos", tmp_path / "val.txt") == 1
        assert "no names" in capsys.readouterr().err
