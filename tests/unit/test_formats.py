"""Files are written whole, hold what the field expects, and read back to the same segments."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from omg_transformers import formats
from omg_transformers.formats.vipseg import VipsegResults
from omg_transformers.labels import LabelSpace, builtin_label_space
from omg_transformers.ops.masks import encode_masks
from omg_transformers.structures import Segments

SPACE = LabelSpace.from_names(["person", "dog", "grass", "sky"], things=["person", "dog"])


def flat_segments() -> Segments:
    """Ids 1, 700 and 70000 on 33 x 47 pixels, a part void; 70000 is stuff."""
    ids = torch.zeros(1, 33, 47, dtype=torch.int32)
    ids[0, :20, :30] = 1
    ids[0, 5:9, 40:] = 700
    ids[0, 25:, 3:] = 70000
    return Segments((33, 47), torch.tensor([1, 700, 70000]), torch.tensor([1, 0, 3]), torch.tensor([0.5, 0.75, 1]), ids)


def overlapping_segments() -> Segments:
    masks = torch.rand(3, 1, 33, 47, generator=torch.Generator().manual_seed(0)) > 0.5
    masks[2] = False
    rles = tuple(encode_masks(mask) for mask in masks)
    return Segments(
        (33, 47), torch.tensor([1, 2, 3]), torch.tensor([0, 1, 0]), torch.tensor([0.9, 0.25, 0.1]), rles=rles
    )


def assert_equal(first: Segments, second: Segments) -> None:
    assert first.size == second.size
    assert first.labels.tolist() == second.labels.tolist()
    torch.testing.assert_close(first.scores, second.scores.float())
    assert all((first.mask(index) == second.mask(index)).all() for index in range(len(first)))


def test_panoptic_files_read_back_to_the_same_segments(tmp_path):
    segments = flat_segments()
    path = formats.write_panoptic(tmp_path / "panoptic.json", [(7, "seven.png", segments)], SPACE)
    loaded = formats.read_panoptic(path, SPACE)
    assert list(loaded) == [7]
    assert_equal(loaded[7], segments)
    assert loaded[7].ids.tolist() == segments.ids.tolist()


def test_panoptic_json_holds_what_coco_holds(tmp_path):
    formats.write_panoptic(tmp_path / "panoptic.json", [(7, "seven.png", flat_segments())], SPACE)
    content = json.loads((tmp_path / "panoptic.json").read_text())
    assert content["images"] == [{"id": 7, "file_name": "seven.png", "height": 33, "width": 47}]
    first, second, third = content["annotations"][0]["segments_info"]
    assert first == {"id": 1, "category_id": 2, "area": 600, "bbox": [0, 0, 30, 20], "iscrowd": 0, "score": 0.5}
    assert second["bbox"] == [40, 5, 7, 4]
    assert third["category_id"] == 4
    assert content["categories"][3]["isthing"] == 0
    assert np.asarray(Image.open(tmp_path / "panoptic" / "seven.png"))[30, 10].tolist() == [112, 17, 1]  # 70000


def test_an_empty_result_is_written_and_read(tmp_path):
    none = torch.zeros(0)
    empty = Segments((4, 5), none.long(), none.long(), none, torch.zeros(1, 4, 5, dtype=torch.int32))
    path = formats.write_panoptic(tmp_path / "panoptic.json", [(1, "a.png", empty)], SPACE)
    assert len(formats.read_panoptic(path, SPACE)[1]) == 0
    assert formats.coco_results(empty, SPACE, image_id=1) == []
    assert (formats.class_map(empty) == -1).all()


def test_the_truth_of_coco_is_read(shared_data):
    space = builtin_label_space("coco_panoptic")
    folder = shared_data / "coco" / "annotations"
    truth = formats.read_panoptic(folder / "panoptic_val2017.json", space)
    assert len(truth) == 60
    infos = json.loads((folder / "panoptic_val2017.json").read_text())["annotations"][0]
    segments = truth[infos["image_id"]]
    areas = [int(segments.mask(index).sum()) for index in range(len(segments))]
    assert areas == [info["area"] for info in infos["segments_info"]]
    assert [space.dataset_ids[label] for label in segments.labels] == [i["category_id"] for i in infos["segments_info"]]


def test_a_png_with_ids_that_the_json_lacks_is_refused():
    ids = np.array([[1, 2]])
    annotation = {"file_name": "a.png", "segments_info": [{"id": 1, "category_id": 1}]}
    with pytest.raises(ValueError, match=r"a\.png holds ids \[2\]"):
        formats.segments_of_panoptic(ids, annotation, SPACE)


@pytest.mark.parametrize("bad", [-1, 256**3])
def test_ids_that_no_colour_can_hold_are_refused(bad, tmp_path):
    with pytest.raises(ValueError, match="a colour can hold"):
        formats.write_id_png(tmp_path / "a.png", np.array([[bad]]))
    assert not list(tmp_path.iterdir())


def test_overlapping_segments_are_no_png():
    with pytest.raises(ValueError, match="may overlap"):
        formats.panoptic_annotation(overlapping_segments(), SPACE, image_id=1, file_name="a.png")
    with pytest.raises(ValueError, match="may overlap"):
        formats.class_map(overlapping_segments())


def test_coco_results_read_back_to_the_same_segments(tmp_path):
    segments = overlapping_segments()
    entries = formats.coco_results(segments, SPACE, image_id=9)
    assert [entry["category_id"] for entry in entries] == [1, 2]  # the empty third is left out
    path = formats.write_json(tmp_path / "coco.json", entries)
    loaded = formats.read_coco_results(path, SPACE)[9]
    assert loaded.scores.tolist() == pytest.approx([0.9, 0.25])
    assert all((loaded.mask(index) == segments.mask(index)).all() for index in range(2))


def test_coco_results_are_what_pycocotools_expects():
    segments = overlapping_segments()
    entry = formats.coco_results(segments, SPACE, image_id=9)[0]
    assert isinstance(entry["segmentation"]["counts"], str)
    assert coco_mask.area(entry["segmentation"]) == entry["area"] == int(segments.mask(0).sum())
    assert coco_mask.toBbox(entry["segmentation"]).tolist() == entry["bbox"]


def test_things_of_a_flat_result_become_coco_results():
    entries = formats.coco_results(flat_segments(), SPACE, image_id=1, only_things=True)
    assert [entry["id"] for entry in entries] == [1, 700]


def test_results_without_classes_get_category_0():
    entries = formats.coco_results(overlapping_segments(), None, image_id=1)
    assert {entry["category_id"] for entry in entries} == {0}
    assert formats.segments_of_results(entries, None, size=(33, 47)).labels.tolist() == [-1, -1]


@pytest.mark.parametrize(("content", "message"), [({"images": []}, "no COCO results file"), ("[{", "not valid JSON")])
def test_a_wrong_results_file_is_named(content, message, tmp_path):
    path = tmp_path / "wrong.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ValueError, match=rf"wrong\.json.*{message}"):
        formats.read_coco_results(path, SPACE)


def test_a_mask_of_another_size_is_refused():
    entries = formats.coco_results(overlapping_segments(), SPACE, image_id=1)
    with pytest.raises(ValueError, match=r"\(33, 47\), expected \(47, 33\)"):
        formats.segments_of_results(entries, SPACE, size=(47, 33))


def test_class_pngs_read_back_with_void(tmp_path):
    segments = flat_segments()
    path = formats.write_class_png(tmp_path / "classes.png", segments, SPACE)
    classes = formats.read_class_png(path)
    np.testing.assert_array_equal(classes, formats.class_map(segments))
    assert sorted(np.unique(classes)) == [-1, 0, 1, 3]
    with Image.open(path) as image:
        assert image.mode == "P"
        assert image.convert("RGB").getpixel((10, 30)) == SPACE.colors[3]


def test_many_classes_get_16_bits(tmp_path):
    space = LabelSpace.from_names([f"class {index}" for index in range(300)])
    classes = np.arange(-1, 299).reshape(15, 20)
    segments = formats.segments_of_class_map(classes, space)
    path = formats.write_class_png(tmp_path / "classes.png", segments, space)
    np.testing.assert_array_equal(formats.read_class_png(path), classes)


def test_classes_beyond_the_label_space_are_refused():
    with pytest.raises(ValueError, match="has 4"):
        formats.segments_of_class_map(np.array([[4]]), SPACE)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")
    with pytest.raises(TypeError):
        formats.write_json(path, {"not": object()})
    with pytest.raises(TypeError):
        formats.write_bytes(path, "text is no bytes")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_has_the_rights_of_any_other(tmp_path):
    (tmp_path / "plain").write_text("")
    written = formats.write_bytes(tmp_path / "ours", b"")
    assert written.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(OSError, match=r"nowhere.result\.json"):
        formats.write_json(tmp_path / "nowhere" / "result.json", {})


def test_dictionaries_of_transformers_hold_ids_and_void_or_masks():
    flat = formats.segmentation_dict(flat_segments())
    assert sorted(flat["segmentation"].unique().tolist()) == [-1, 1, 700, 70000]
    assert flat["segments_info"][0] == {"id": 1, "label_id": 1, "was_fused": False, "score": 0.5}
    overlapping = formats.segmentation_dict(overlapping_segments())
    assert overlapping["segmentation"].shape == (3, 33, 47)
    assert overlapping["segmentation"].dtype == torch.bool
    none = torch.zeros(0)
    empty = formats.segmentation_dict(Segments((4, 5), none.long(), none.long(), none, rles=()))
    assert empty["segmentation"].shape == (0, 4, 5)
    assert empty["segments_info"] == []


def test_vipseg_gives_an_id_one_class_through_the_video(tmp_path):
    space = LabelSpace.from_names(["cat", "dog"])
    results = VipsegResults(tmp_path, "clip", space)
    for number, label in enumerate([1, 0, 0]):
        id_map = torch.full((1, 4, 6), 7, dtype=torch.int32)
        segments = Segments((4, 6), torch.tensor([7]), torch.tensor([label]), torch.tensor([0.5]), id_map=id_map)
        results.add(f"{number:05d}", segments)
    content = json.loads(results.close().read_text())
    frames = content["annotations"][0]["annotations"]
    assert [entry["file_name"] for entry in frames] == ["00000.png", "00001.png", "00002.png"]
    assert {info["category_id"] for entry in frames for info in entry["segments_info"]} == {space.classes[0].dataset_id}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pan_pred", "pred.json"]
