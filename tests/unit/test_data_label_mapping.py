"""Annotations in another label space: by name, by synonym, void or class-agnostic where nothing fits."""

from __future__ import annotations

import numpy as np
import pytest

from omg_transformers.data import (
    MappedSource,
    ProceduralScenes,
    StreamedSource,
    join_sources,
    map_annotation,
    read_coco_panoptic,
)
from omg_transformers.data.mixture import JointSettings, SourceSettings, build_sources
from omg_transformers.data.procedural import procedural_label_space
from omg_transformers.data.regions import decode_region, encode_region, region_area
from omg_transformers.labels import LabelSpace, builtin_label_space
from omg_transformers.structures import Annotation, Sample, Segment

FINE = LabelSpace.from_names(["cat", "dog", "oak", "birch", "car"], things=["cat", "dog", "car"])
COARSE = LabelSpace.from_names(["tree|oak|birch", "animal|cat|dog"], things=["animal"])
SIZE = (4, 5)


def annotation():
    """One column per class."""
    segments = []
    for column in range(5):
        mask = np.zeros(SIZE, bool, order="F")
        mask[:, column] = True
        mask[0, 0] = False
        segments.append(Segment(column, (encode_region(mask),), column + 1))
    void = np.zeros(SIZE, bool, order="F")
    void[0, 0] = True
    return Annotation(SIZE, FINE.is_thing, tuple(segments), (encode_region(void),))


def test_things_stay_apart_and_stuff_of_one_class_is_joined():
    result = map_annotation(annotation(), FINE, COARSE, unmapped="void")
    assert [segment.category_id for segment in result.segments] == [1, 1, 0]
    assert [region_area(segment.masks[0]) for segment in result.segments] == [3, 4, 8]
    assert result.is_thing == COARSE.is_thing


def test_what_has_no_class_becomes_void():
    result = map_annotation(annotation(), FINE, COARSE, unmapped="void")
    void = decode_region(result.void[0], SIZE)
    assert void[0, 0] and void[:, 4].all() and void.sum() == 5


def test_what_has_no_class_can_keep_its_mask():
    result = map_annotation(annotation(), FINE, COARSE, unmapped="class_agnostic")
    assert result.segments[-1].category_id == -1 and region_area(result.void[0]) == 1


def test_what_has_no_class_is_named():
    with pytest.raises(ValueError, match=r"'custom'.*: car\. Add synonyms"):
        map_annotation(annotation(), FINE, COARSE)


def test_an_unknown_policy_is_refused():
    with pytest.raises(ValueError, match="unmapped is 'drop'"):
        map_annotation(annotation(), FINE, COARSE, unmapped="drop")


def test_a_class_agnostic_space_takes_all_masks():
    result = map_annotation(annotation(), FINE, builtin_label_space("davis"))
    assert [segment.category_id for segment in result.segments] == [-1] * 5


def test_a_segment_without_class_stays_without():
    plain = Annotation(SIZE, FINE.is_thing, (Segment(-1, annotation().segments[1].masks, 9),))
    assert map_annotation(plain, FINE, COARSE).segments == plain.segments


def test_of_two_classes_with_one_name_the_same_kind_is_taken():
    # "food" is a thing of the coarse space, "food-other-merged" of COCO is stuff.
    source = [{"id": 196, "name": "food-other-merged", "isthing": 0, "supercategory": "food-stuff"}]
    from omg_transformers.data.label_mapping import classes_of_categories

    space = builtin_label_space("coco_supercategory")
    target = classes_of_categories(source, space, where="here")[196]
    assert not space.is_thing[target]


def test_a_mapped_source_shows_the_new_space():
    space = LabelSpace.from_names(["red circle"], name="one")
    source = MappedSource(ProceduralScenes((32, 32)), space, unmapped="void")
    sample = source.sample(0)
    assert sample.label_space is space and source.num_samples is None
    assert {segment.category_id for segment in sample.annotation.segments} <= {0}


def test_a_mapped_source_names_missing_classes_at_once():
    with pytest.raises(ValueError, match="174 classes of 'procedural'"):
        MappedSource(ProceduralScenes((32, 32)), LabelSpace.from_names(["red circle"]))


def test_every_coco_class_falls_into_a_supercategory(shared_data):
    space = builtin_label_space("coco_supercategory")
    source = MappedSource(read_coco_panoptic(shared_data / "coco", "val2017"), space)
    assert set(source.mapping) >= set(range(27)) - {space.index("groceries")}
    assert source.sample(0).annotation.num_classes == 27


def source_of(space, category):
    mask = encode_region(np.asfortranarray(np.ones(SIZE, bool)))
    annotation = Annotation(SIZE, space.is_thing, (Segment(category, (mask,), 1),))
    sample = Sample("one", (np.zeros((*SIZE, 3), np.uint8),), annotation, space, ("panoptic",))
    return StreamedSource(lambda: [sample], space, ("panoptic",))


def test_joined_sources_keep_only_what_they_annotate_and_meet_in_one_name():
    things = LabelSpace.from_names(["car", "person"], name="things")
    street = LabelSpace.from_names(["automobile", "road"], name="street")
    sources = [source_of(things, 0), source_of(things, 1), source_of(street, 0)]
    joint, mapped = join_sources(sources, same=[["car", "automobile"]])
    assert joint.label_space.names == ("car", "person", "road")
    assert [source.label_space.names for source in mapped] == [("car", "person"), ("car", "person"), ("car", "road")]
    samples = [source.sample(0) for source in mapped]
    names = [sample.label_space.names[sample.annotation.segments[0].category_id] for sample in samples]
    assert names == ["car", "person", "car"]


def test_spaces_of_one_name_and_other_classes_are_told_apart():
    sources = [source_of(LabelSpace.from_names([name], name="data"), 0) for name in ("cat", "dog")]
    joint, mapped = join_sources(sources)
    assert joint.label_space.names == ("cat", "dog")
    assert [source.label_space.name for source in mapped] == ["joint/data_1", "joint/data_2"]


def test_sources_of_settings_can_share_one_label_space():
    settings = [SourceSettings("scenes"), SourceSettings("scenes", name="clips", options={"num_frames": 2})]
    sources, report = build_sources(settings, JointSettings("mine", same=[["red circle", "green circle"]]))
    assert len(sources) == 2 and len(sources[0].label_space) == len(procedural_label_space()) - 1
    assert sources[0].label_space.name == "mine/procedural" and any("joined" in line for line in report)


def test_a_wrong_joint_setting_is_named():
    with pytest.raises(ValueError, match=r"joint: same names 'red cirkle'.*red circle"):
        build_sources([SourceSettings("scenes")], JointSettings(same=[["red cirkle", "green circle"]]))
