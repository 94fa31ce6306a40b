"""The registry of layouts: names, splits, and which tasks a source serves."""

from __future__ import annotations

from pathlib import Path

import pytest

from omg_transformers.data import ProceduralScenes, detect_layouts, open_layout
from omg_transformers.data.readers import LAYOUTS
from omg_transformers.plugins import available_heads, heads_that_read, load_head


def test_layout_names_are_unique() -> None:
    names = [layout.name for layout in LAYOUTS]
    assert len(set(names)) == len(names) > 0


def test_an_empty_folder_is_in_no_layout(tmp_path: Path) -> None:
    assert detect_layouts(tmp_path) == []


def test_a_wrong_kind_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"kind is 'coco_panoptik'.*coco_panoptic"):
        open_layout("coco_panoptik", tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no_such is no folder"):
        open_layout("coco_panoptic", tmp_path / "no_such")


def test_a_folder_without_the_layout_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no COCO panoptic was found"):
        open_layout("coco_panoptic", tmp_path)


def test_outlines_alone_serve_only_heads_that_read_nothing_more() -> None:
    served = heads_that_read((), is_video=False)
    assert "interactive" in served
    assert all(load_head(name).spec.reads == () for name in served)


def test_every_installed_head_is_served_by_procedural_pictures_or_clips() -> None:
    served = {*ProceduralScenes().tasks, *ProceduralScenes(num_frames=2).tasks}
    assert served == set(available_heads())


def test_classes_without_instances_do_not_serve_the_instance_head() -> None:
    assert "instance" not in heads_that_read(("classes", "scene"), is_video=False)
    assert "semantic" in heads_that_read(("classes", "scene"), is_video=False)
