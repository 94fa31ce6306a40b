"""Which layout is found in which folder of the real data sets."""

from __future__ import annotations

import pytest

from omg_transformers.data import detect_layouts

PICTURE_LAYOUTS = {
    "coco_instances", "lvis", "ade20k", "ade20k_full", "cityscapes", "cityscapes_panoptic", "voc", "sa1b", "yolo_seg",
    "labelme", "mask_folder", "hf_dataset",
}  # fmt: skip


def names(folder):
    assert folder.is_dir()
    return [detection.layout.name for detection in detect_layouts(folder)]


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("coco", ["coco_panoptic", "coco_instances"]),
        ("lvis", ["lvis"]),
        ("ade20k/ADEChallengeData2016", ["ade20k", "mask_folder"]),
        ("ade20k/ADE20K_2021_17_01", ["ade20k_full"]),
        ("cityscapes_format_sample", ["cityscapes_panoptic"]),
        ("voc_labelme", ["voc", "coco_instances"]),
        ("voc_labelme/VOC", ["voc", "coco_instances"]),
        ("voc_labelme/video", ["voc"]),
    ],
)
def test_the_right_layout_stands_first(shared_data, folder, expected):
    assert names(shared_data / folder) == expected


@pytest.mark.parametrize(
    "folder",
    [
        "CamVid", "DAVIS", "DAVIS_first_frames", "DAVIS_interactive_sample", "VIPSeg_from_camvid", "youtubevis",
        "youtubevis/train", "vspw_vos", "sav_sample_no_video", "panopticapi_sample", "vipseg_image_predictions_deva",
        "clip", "pictures", "ade20k",
    ],
)  # fmt: skip
def test_no_picture_layout_is_seen_in_other_sets(shared_data, folder):
    assert PICTURE_LAYOUTS.isdisjoint(names(shared_data / folder))
