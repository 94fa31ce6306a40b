"""The files of the field, written and read: results go out, other people's results come in."""

from omg_transformers.formats.atomic_file import write_bytes, write_json
from omg_transformers.formats.class_png import class_map, read_class_png, segments_of_class_map, write_class_png
from omg_transformers.formats.coco_instances import coco_results, read_coco_results, segments_of_results
from omg_transformers.formats.coco_panoptic import (
    panoptic_annotation,
    read_id_png,
    read_panoptic,
    segments_of_panoptic,
    write_id_png,
    write_panoptic,
)
from omg_transformers.formats.segmentation_dict import segmentation_dict
from omg_transformers.formats.segments_jsonl import read_json_lines, segments_from_dict, segments_to_dict

__all__ = [
    "class_map",
    "coco_results",
    "panoptic_annotation",
    "read_class_png",
    "read_coco_results",
    "read_id_png",
    "read_json_lines",
    "read_panoptic",
    "segmentation_dict",
    "segments_from_dict",
    "segments_of_class_map",
    "segments_of_panoptic",
    "segments_of_results",
    "segments_to_dict",
    "write_bytes",
    "write_class_png",
    "write_id_png",
    "write_json",
    "write_panoptic",
]
