"""VPQ and STQ of VIPSeg's files: JSON with RGB maps, and panomasks; what is paired, noted and refused."""

from __future__ import annotations

import copy
import json
import math

import numpy as np
import pytest
from PIL import Image

from omg_transformers.metrics.segmentation_tracking import SegmentationTrackingQuality
from omg_transformers.metrics.video_panoptic import VideoPanopticQuality
from omg_transformers.metrics.vipseg_files import score_vipseg_files

CATEGORIES = [
    {"id": 0, "name": "wall", "isthing": 0},
    {"id": 2, "name": "door", "isthing": 1},
    {"id": 60, "name": "person", "isthing": 1},
]
IS_THING = (False, True, True)
# In panomasks and, as segment ids, in the JSON: wall, one door, two persons; classes 0, 1, 2, 2.
IDS = {1: 0, 301: 1, 6101: 2, 6102: 2}


def clip(length, *, seed=0, shape=(12, 16)):
    """Id maps (T, H, W) of blocks; a different seed moves the blocks."""
    maps = np.zeros((length, *shape), dtype=np.uint16)
    for frame, ids in enumerate(maps):
        left = (frame + seed) % 6
        ids[:4], ids[5:9, left : left + 4], ids[9:, :5], ids[9:, 8 + seed :] = 1, 301, 6101, 6102
    return maps


def write_raw(folder, videos):
    for video, maps in videos.items():
        (folder / video).mkdir(parents=True, exist_ok=True)
        for frame, ids in enumerate(maps):
            Image.fromarray(ids).save(folder / video / f"{frame:04}.png")
    (folder.parent / "panoVIPSeg_categories.json").write_text(json.dumps(CATEGORIES))
    return folder


def write_json(file, folder, videos, *, crowds=(), **extra):
    category_ids = [category["id"] for category in CATEGORIES]
    annotations = []
    for video, maps in videos.items():
        (folder / video).mkdir(parents=True, exist_ok=True)
        frames = []
        for frame, ids in enumerate(maps):
            rgb = np.stack([ids % 256, ids // 256, 0 * ids], axis=-1).astype(np.uint8)
            Image.fromarray(rgb).save(folder / video / f"{frame:04}.png")
            segments = [
                {
                    "id": int(i),
                    "category_id": category_ids[IDS[int(i)]],
                    "iscrowd": int(i in crowds),
                    "area": int((ids == i).sum()),
                }
                for i in np.unique(ids)
                if i
            ]
            frames.append({"image_id": f"{frame:04}", "file_name": f"{frame:04}.png", "segments_info": segments})
        annotations.append({"video_id": video, "annotations": frames})
    file.write_text(json.dumps({"annotations": annotations, **extra}))
    return file


TRUTH = {"street": clip(7), "hall": clip(1)}
FOUND = {"street": clip(7, seed=1), "hall": clip(1, seed=2)}


@pytest.fixture
def files(tmp_path):
    (tmp_path / "found").mkdir()
    truth = write_json(tmp_path / "gt.json", tmp_path / "panomasksRGB", TRUTH, categories=CATEGORIES)
    write_json(tmp_path / "found/pred.json", tmp_path / "found/pan_pred", FOUND)
    return truth, tmp_path / "found"


def change(path, edit):
    content = json.loads(path.read_text())
    edit(content["annotations"])
    path.write_text(json.dumps(content))


def counted(crowds=()):
    metrics = VideoPanopticQuality(3, IS_THING), SegmentationTrackingQuality(3, IS_THING)
    for video, maps in TRUTH.items():
        for metric in metrics:
            metric.update_maps(FOUND[video], maps, IDS, IDS, crowd_ids=crowds)
    return {**metrics[0].compute(), **metrics[1].compute()}


def test_files_score_like_the_maps_in_them(files):
    result = score_vipseg_files(*files)
    assert result.compute() == pytest.approx(counted(), nan_ok=True)
    assert 0 < result.compute()["vpq"] < 1
    assert (result.category_ids, result.video_names, result.num_frames) == ((0, 2, 60), ("street", "hall"), 8)
    assert [len(column) for column in result.per_class().values()] == [3] * len(result.per_class())
    assert list(result.per_class())[:7] == ["vpq", "vpq_1", "vpq_2", "vpq_4", "vpq_6", "stq_iou", "stq_aq"]


def test_panomasks_score_like_the_json_files(files, tmp_path):
    truth = write_raw(tmp_path / "panomasks", TRUTH)
    found = write_raw(tmp_path / "masks", FOUND)
    expected = score_vipseg_files(*files).compute()
    for sides in ((truth, found), (tmp_path, found), (truth, files[1]), (files[0], found)):
        assert score_vipseg_files(*sides).compute() == pytest.approx(expected, nan_ok=True)


def test_crowds_are_those_of_the_truth(files, tmp_path):
    truth = write_json(tmp_path / "gt.json", tmp_path / "panomasksRGB", TRUTH, categories=CATEGORIES, crowds=[6102])
    assert score_vipseg_files(truth, files[1]).compute() == pytest.approx(counted([6102]), nan_ok=True)
    assert counted([6102]) != counted()


def test_a_video_of_one_frame_has_one_window_and_is_named(files):
    result = score_vipseg_files(*files, videos=["hall"])
    figures = result.compute()
    assert not math.isnan(figures["vpq_1"])
    assert math.isnan(figures["vpq_2"])
    assert "1 videos have fewer than 2 frames: no such window, hall" in result.notes


def test_the_first_segment_of_a_video_is_no_crowd(files):
    """VIPSeg's own STQ gives it the number 0, which means crowd there."""
    tables = score_vipseg_files(files[0], files[0], files[0].parent / "panomasksRGB", files[0].parent / "panomasksRGB")
    assert tables.tracking.counts.num_tubes.tolist() == [0, 2, 4]
    assert tables.compute()["stq"] == 1.0


def test_frames_without_names_go_by_their_order(files):
    expected = score_vipseg_files(*files).compute()

    def strip(annotations):
        for video in annotations:
            for frame in video["annotations"]:
                del frame["file_name"], frame["image_id"]

    change(files[1] / "pred.json", strip)
    assert score_vipseg_files(*files).compute() == pytest.approx(expected, nan_ok=True)


def test_frames_are_paired_by_name_not_by_order(files):
    expected = score_vipseg_files(*files).compute()
    change(files[1] / "pred.json", lambda annotations: annotations[0]["annotations"].reverse())
    assert score_vipseg_files(*files).compute() == pytest.approx(expected, nan_ok=True)


def test_superfluous_videos_and_frames_are_listed(files):
    def add(annotations):
        annotations.append({"video_id": "yard", "annotations": []})
        annotations[1]["annotations"].append({"file_name": "0009.png", "segments_info": []})

    change(files[1] / "pred.json", add)
    notes = score_vipseg_files(*files).notes
    assert any("1 videos left out, yard" in note for note in notes)
    assert any("1 frames left out, hall/0009" in note for note in notes)


def frame_of(annotations):
    return annotations[0]["annotations"][2]


def segment_of(annotations):
    return frame_of(annotations)["segments_info"][1]


PLACE = r"pred\.json, video street, frame 0002: "


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda a: a.pop(0), r"lacks 1 of 2 videos, street"),
        (lambda a: a[0]["annotations"].pop(2), r"video street: lacks 1 of 7 frames, 0002; it has 0000, .* and 1 more"),
        (lambda a: a.append(copy.deepcopy(a[0])), r"video_id street occurs twice"),
        (lambda a: a[0]["annotations"].append(frame_of(a)), r"street: frame 0002 occurs twice"),
        (lambda a: frame_of(a).pop("segments_info"), r"street: frame 2 has no file_name or no list segments_info"),
        (lambda a: a[0].pop("video_id"), r"an annotation has no video_id"),
        (lambda a: segment_of(a).update(category_id=1), PLACE + r"segment 301 has unknown category_id 1"),
        (lambda a: segment_of(a).update(category_id=60), PLACE + r"id 301 has another category than in"),
        (lambda a: segment_of(a).update(id=302), PLACE + r"the PNG holds id 301, which segments_info does not list"),
        (lambda a: segment_of(a).update(id=6101), PLACE + r"segment id 6101 occurs twice"),
        (
            lambda a: frame_of(a)["segments_info"].append({"id": 9, "category_id": 0}),
            PLACE + r"segments_info lists id 9, which has no pixel",
        ),
    ],
)
def test_predictions_that_do_not_fit_are_refused(files, edit, message):
    change(files[1] / "pred.json", edit)
    with pytest.raises(ValueError, match=message):
        score_vipseg_files(*files)


def test_true_segments_without_a_pixel_are_noted(files):
    change(files[0], lambda a: frame_of(a)["segments_info"].append({"id": 9, "category_id": 2}))
    assert any("1 segments have no pixel in the PNG" in note for note in score_vipseg_files(*files).notes)


def test_a_missing_png_stops_before_any_is_read(files):
    (files[1] / "pan_pred/street/0000.png").write_bytes(b"broken")
    (files[1] / "pan_pred/hall/0000.png").unlink()
    with pytest.raises(ValueError, match=r"video hall, frame 0000: there is no .*pan_pred.hall.0000\.png"):
        score_vipseg_files(*files)


def test_frames_of_other_size_name_both_files(files):
    Image.new("RGB", (9, 8)).save(files[1] / "pan_pred/street/0003.png")
    change(files[1] / "pred.json", lambda a: a[0]["annotations"][3].update(segments_info=[]))
    with pytest.raises(ValueError, match=r"pan_pred.street.0003\.png is 8 x 9, .*RGB.street.0003\.png is 12 x 16"):
        score_vipseg_files(*files)


def test_a_frame_where_nothing_was_found_is_no_error(files):
    Image.new("RGB", (16, 12)).save(files[1] / "pan_pred/street/0003.png")
    change(files[1] / "pred.json", lambda a: a[0]["annotations"][3].update(segments_info=[]))
    assert score_vipseg_files(*files).compute()["vpq"] < counted()["vpq_1"]


def test_panomasks_with_unknown_values_are_refused(files, tmp_path):
    found = {**FOUND, "street": FOUND["street"].copy()}
    found["street"][3, 0, 0] = 12300
    with pytest.raises(ValueError, match=r"masks.street.0003\.png: value 12300 is category 122"):
        score_vipseg_files(files[0], write_raw(tmp_path / "masks", found))


def test_wrong_layouts_say_what_was_found(files, tmp_path):
    raw = write_raw(tmp_path / "raw/panomasks", TRUTH)
    (tmp_path / "raw/panoVIPSeg_categories.json").unlink()
    with pytest.raises(ValueError, match=r"there is no .*panoVIPSeg_categories\.json: panomasks need"):
        score_vipseg_files(raw, files[1])
    with pytest.raises(ValueError, match=r"gt_folder .*nowhere is not there"):
        score_vipseg_files(*files, gt_folder=tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"prediction .*pan_pred.street is a folder with 7 \.png"):
        score_vipseg_files(files[0], files[1] / "pan_pred" / "street")
    with pytest.raises(ValueError, match=r"gt\.json has no truth for 1 of 1 videos, yard"):
        score_vipseg_files(*files, videos=["yard"])
    files[0].write_text(json.dumps({"annotations": [], "categories": CATEGORIES}))
    with pytest.raises(ValueError, match=r"has no annotated video: there is nothing to score"):
        score_vipseg_files(*files)


def test_the_camvid_clip_against_itself_is_perfect(shared_data):
    folder = shared_data / "VIPSeg_from_camvid"
    result = score_vipseg_files(folder, folder / "panomasks", videos=["0016E5_a"], windows=[1, 6])
    assert (result.compute()["vpq"], result.compute()["stq"]) == (1.0, 1.0)
    assert result.num_frames == 30
