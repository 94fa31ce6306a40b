"""Label spaces: names, synonyms, ids, the built-in spaces, joint spaces."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from omg_transformers.labels import (
    LabelClass,
    LabelSpace,
    builtin_label_space,
    builtin_label_space_names,
    joint_label_space,
    split_names,
)
from omg_transformers.labels.colors import distinct_colors

SIZES = {
    "ade20k": (100, 50),
    "cityscapes": (8, 11),
    "cityscapes_label_ids": (8, 11),
    "coco_instance": (80, 0),
    "coco_panoptic": (80, 53),
    "coco_supercategory": (12, 15),
    "davis": (1, 0),
    "vipseg": (58, 66),
    "youtube_vis_2019": (40, 0),
    "youtube_vis_2021": (40, 0),
}
OFFICIAL = {
    "ade20k": "ADEPanopticOVDataset",
    "cityscapes": "CityscapesPanopticDataset",
    "cityscapes_label_ids": "CityscapesPanopticDataset",
    "coco_instance": "CocoOVDataset",
    "coco_panoptic": "CocoPanopticOVDataset",
    "vipseg": "VIPSegDataset",
    "youtube_vis_2019": "YouTubeVISDataset_2019",
    "youtube_vis_2021": "YouTubeVISDataset_2021",
}


@pytest.fixture(scope="module")
def official() -> dict:
    """Class lists of the original, facts beside the reference outputs."""
    file = Path(__file__).resolve().parents[2].parent / "shared" / "golden" / "official_classes.json"
    if not file.is_file():
        pytest.skip("the original's class lists are not beside this checkout (../shared/golden/official_classes.json)")
    return json.loads(file.read_text())


def space_of(*classes: LabelClass, **options) -> LabelSpace:
    return LabelSpace("test", classes, **options)


# --- classes and spaces ------------------------------------------------------------------------------------------


def test_index_finds_names_synonyms_and_the_data_sets_own_names():
    space = space_of(
        LabelClass("tree", ("bush",), dataset_id=7, dataset_name="tree-merged"), LabelClass("couch", ("sofa",))
    )
    assert [space.index(text) for text in ("tree", "bush", "tree-merged", "sofa")] == [0, 0, 0, 1]


@pytest.mark.parametrize(
    "text", ["Traffic Light", "traffic_light", "traffic-light", " traffic light ", "TRAFFIC LIGHT-other"]
)
def test_index_forgives_case_hyphens_underscores_and_coco_endings(text):
    assert builtin_label_space("cityscapes").index(text) == 6


def test_exact_name_wins_over_a_forgiven_ending():
    space = space_of(LabelClass("food", dataset_id=1), LabelClass("groceries", dataset_id=2, dataset_name="food-stuff"))
    assert (space.index("food"), space.index("food-stuff")) == (0, 1)


def test_unknown_name_lists_the_nearest():
    with pytest.raises(ValueError, match=r"no class 'motorcicle'.*'motorcycle'"):
        builtin_label_space("coco_panoptic").index("motorcicle")


def test_index_of_dataset_id_maps_ids_and_void():
    space = builtin_label_space("coco_panoptic")
    assert space.index_of_dataset_id(200) == 132
    assert space.index_of_dataset_id(0) is None
    with pytest.raises(ValueError, match="no class with the data set's id 12"):
        space.index_of_dataset_id(12)


def test_views_have_one_entry_per_class():
    space = builtin_label_space("vipseg")
    views = (space.names, space.is_thing, space.colors, space.prompts, space.dataset_ids)
    assert [len(view) for view in views] == [len(space)] * 5


def test_space_is_hashable_and_equal_by_content():
    assert len({LabelSpace.from_names(["a", "b"]), LabelSpace.from_names(["a", "b"])}) == 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"name": " "}, ValueError, "non-empty"),
        ({"name": "a", "synonyms": ("b", "")}, ValueError, "'a' has the synonym ''"),
        ({"name": "a", "synonyms": "bc"}, TypeError, "tuple of texts"),
        ({"name": "a", "color": (0, 0, 256)}, ValueError, "0..255"),
        ({"name": "a", "color": (0, 0)}, ValueError, "0..255"),
        ({"name": "a", "is_thing": 2}, TypeError, "is_thing=2"),
        ({"name": "a", "dataset_id": "3"}, TypeError, "dataset_id='3'"),
    ],
)
def test_bad_class_names_class_and_value(options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        LabelClass(**options)


@pytest.mark.parametrize(
    ("classes", "options", "message"),
    [
        ([], {}, "has no classes"),
        ([("cat", (), 1), ("Cat", (), 2)], {}, "'Cat' for class 0 ('cat') and for class 1 ('Cat')"),
        ([("cat", (), 1), ("dog", ("cat",), 2)], {}, "'cat' for class 0"),
        ([("cat", ("pet",), 1), ("dog", ("pet",), 2)], {}, "'pet' for class 0"),
        ([("cat", ("kitty", "Kitty"), 1)], {}, "'cat' repeats a text"),
        ([("cat", (), 1), ("dog", (), 1)], {}, "both have dataset_id 1"),
        ([("cat", (), 1)], {"void_ids": (1,)}, "also in void_ids"),
    ],
)
def test_bad_space_says_what_is_wrong(classes, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        space_of(*(LabelClass(name, synonyms, dataset_id=number) for name, synonyms, number in classes), **options)


def test_a_thing_and_a_stuff_class_may_share_a_name():
    space = space_of(LabelClass("window", dataset_id=1), LabelClass("window", is_thing=False, dataset_id=2))
    assert space.index("window") == 0


# --- from names, to and from JSON --------------------------------------------------------------------------------


def test_from_names_reads_synonyms_and_infers_stuff():
    space = LabelSpace.from_names([" person ", "sofa| couch", "grass", "Sky", "unheard-of"])
    assert space.prompts == (("person",), ("sofa", "couch"), ("grass",), ("Sky",), ("unheard-of",))
    assert space.is_thing == (True, True, False, False, True)


def test_from_names_takes_things_from_the_caller():
    space = LabelSpace.from_names(["grass", "sofa|couch", "person"], things=["Grass", "couch"])
    assert space.is_thing == (True, True, False)


def test_from_names_refuses_a_thing_that_is_no_name():
    with pytest.raises(ValueError, match=r"things names 'persn'.*'person'"):
        LabelSpace.from_names(["person"], things=["persn"])


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ([], ValueError, "names is empty"),
        ("person", TypeError, "give a list"),
        (["person", ""], ValueError, "names[1] is ''"),
        (["person", "sofa|"], ValueError, "names[1] is 'sofa|'"),
        (["person", "Person"], ValueError, "repeats 'Person'"),
        (["traffic light", "traffic_light"], ValueError, "repeats 'traffic_light'"),
        (["__"], ValueError, "names[0] is '__'"),
        (["couch", "sofa|Couch"], ValueError, "repeats 'Couch', already used by 'couch'"),
        (["sofa|sofa"], ValueError, "repeats 'sofa'"),
        (["person, dog"], ValueError, "with a comma"),
        (["person", 3], TypeError, "names[1] is 3"),
    ],
)
def test_from_names_refuses_bad_names(names, error, message):
    with pytest.raises(error, match=re.escape(message)):
        LabelSpace.from_names(names)


def test_colours_are_distinct_and_do_not_depend_on_the_count():
    colors = distinct_colors(500)
    assert len(set(colors)) == 500
    assert colors[:20] == distinct_colors(20)
    assert (0, 0, 0) not in colors


@pytest.mark.parametrize("name", builtin_label_space_names())
def test_json_round_trip_is_exact(name):
    space = builtin_label_space(name)
    assert LabelSpace.from_dict(json.loads(json.dumps(space.to_dict()))) == space


def test_from_dict_names_missing_and_unknown_keys():
    with pytest.raises(ValueError, match=r"missing keys \['classes'\] and unknown keys \['klasses'\]"):
        LabelSpace.from_dict({"name": "a", "klasses": []})
    with pytest.raises(ValueError, match=r"class 'b'.*unknown keys \['colour'\]"):
        LabelSpace.from_dict({"name": "a", "classes": [{"name": "b", "colour": [0, 0, 0]}]})


# --- built-in spaces ---------------------------------------------------------------------------------------------


def test_every_built_in_space_has_its_things_and_stuff():
    sizes = {}
    for name in builtin_label_space_names():
        flags = builtin_label_space(name).is_thing
        sizes[name] = (sum(flags), len(flags) - sum(flags))
    assert sizes == SIZES


def test_unknown_built_in_space_lists_all():
    with pytest.raises(ValueError, match=r"'coco'.*'coco_instance'.*youtube_vis_2021"):
        builtin_label_space("coco")


def test_only_davis_is_class_agnostic():
    assert [n for n in builtin_label_space_names() if builtin_label_space(n).is_class_agnostic] == ["davis"]


@pytest.mark.parametrize("name", sorted(OFFICIAL))
def test_built_in_texts_are_those_of_the_original(name, official):
    lists = official[OFFICIAL[name]]
    things = {tuple(dict.fromkeys(split_names(entry))) for entry in lists.get("thing_classes", lists["classes"])}
    stuff = {tuple(dict.fromkeys(split_names(entry))) for entry in lists.get("stuff_classes", [])}
    classes = builtin_label_space(name).classes
    assert {label.prompts for label in classes if label.is_thing} == things
    assert {label.prompts for label in classes if not label.is_thing} == stuff


def test_coco_agrees_with_its_own_category_files(shared_data):
    categories = json.loads((shared_data / "panopticapi_sample" / "panoptic_coco_categories.json").read_text())
    panoptic, coarse = builtin_label_space("coco_panoptic"), builtin_label_space("coco_supercategory")
    assert len(categories) == len(panoptic)
    for index, category in enumerate(categories):
        label = panoptic.classes[index]
        assert (label.dataset_id, label.is_thing) == (category["id"], bool(category["isthing"]))
        assert label.color == tuple(category["color"])
        assert panoptic.index(category["name"]) == index
        group = coarse.classes[coarse.index(category["supercategory"])]
        assert group.is_thing == bool(category["isthing"])
        assert label.name in group.prompts or label.name == "food"
    instances = json.loads((shared_data / "coco" / "annotations" / "instances_train2017.json").read_text())[
        "categories"
    ]
    assert builtin_label_space("coco_instance").dataset_ids == tuple(category["id"] for category in instances)


def test_ade20k_agrees_with_its_own_table(shared_data):
    with (shared_data / "ade20k" / "ADEChallengeData2016" / "objectInfo150.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    space = builtin_label_space("ade20k")
    assert space.dataset_ids == tuple(int(row["Idx"]) for row in rows) == tuple(range(1, 151))
    for row, label in zip(rows, space.classes, strict=True):
        assert set(row["Name"].split(";")) & {word for text in label.prompts for word in text.split()}, row


def test_vipseg_agrees_with_its_own_category_file(shared_data):
    categories = json.loads((shared_data / "VIPSeg_from_camvid" / "panoVIPSeg_categories.json").read_text())
    space = builtin_label_space("vipseg")
    found = [(c.dataset_id, c.dataset_name or c.name, int(c.is_thing), list(c.color)) for c in space.classes]
    assert found == [(c["id"], c["name"], c["isthing"], c["color"]) for c in categories]


def test_youtube_vis_2021_agrees_with_its_own_category_list(shared_data):
    categories = json.loads((shared_data / "youtubevis" / "train" / "instances.json").read_text())["categories"]
    space = builtin_label_space("youtube_vis_2021")
    assert [(c.dataset_id, c.dataset_name or c.name) for c in space.classes] == [
        (c["id"], c["name"]) for c in categories
    ]


def test_cityscapes_forms_name_the_same_classes_and_leave_no_id_open():
    train, full = builtin_label_space("cityscapes"), builtin_label_space("cityscapes_label_ids")
    assert train.names == full.names
    assert train.dataset_ids == tuple(range(19))
    assert sorted([*full.dataset_ids, *full.void_ids]) == list(range(-1, 34))


def test_labels_import_without_any_heavy_library():
    heavy = "('torch', 'transformers', 'open_clip')"
    code = f"import sys, omg_transformers.labels; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# --- joint spaces ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "things", "stuff", "shared_stuff"),
    [
        (["coco_panoptic", "youtube_vis_2019", "vipseg", "cityscapes"], 136, 101, 9),
        (["coco_panoptic", "youtube_vis_2019", "youtube_vis_2021", "vipseg", "cityscapes"], 139, 101, 9),
        (["coco_panoptic", "ade20k", "youtube_vis_2019", "youtube_vis_2021", "vipseg", "cityscapes"], 196, 124, 30),
    ],
)
def test_joint_space_has_the_class_counts_of_the_original(names, things, stuff, shared_stuff):
    joint = joint_label_space([builtin_label_space(name) for name in names])
    assert joint.label_space.is_thing == (True,) * things + (False,) * stuff
    assert len({name for _, _, name in joint.shared}) == shared_stuff
    assert sum(map(len, joint.index_maps)) - len(joint.merged) == len(joint.label_space)


def test_joint_maps_lead_to_a_class_that_shares_a_text():
    spaces = [builtin_label_space(name) for name in ("coco_panoptic", "vipseg", "cityscapes")]
    joint = joint_label_space(spaces)
    for space, places in zip(spaces, joint.index_maps, strict=True):
        for label, place in zip(space.classes, places, strict=True):
            target = joint.label_space.classes[place]
            assert target.is_thing == label.is_thing
            assert set(target.prompts) & set(label.prompts)


def test_first_class_keeps_its_own_texts_and_the_report_says_who_joined():
    first = LabelSpace.from_names(["sofa|couch", "cat"], name="first")
    second = LabelSpace.from_names(["settee|couch", "dog"], name="second")
    joint = joint_label_space([first, second])
    assert joint.label_space.prompts == (("sofa", "couch"), ("cat",), ("dog",))
    assert joint.index_maps == ((0, 1), (0, 2))
    assert "second: 'settee' joined 'sofa'" in joint.report()


def test_names_said_to_be_the_same_join_although_no_text_is_shared():
    first = LabelSpace.from_names(["car", "cat"], name="first")
    second = LabelSpace.from_names(["automobile", "dog"], name="second")
    joint = joint_label_space([first, second], same=[["car", "Automobile"]])
    assert joint.label_space.names == ("car", "cat", "dog")
    assert joint.merged == (("second", "automobile", "car"),)


def test_classes_said_to_be_apart_do_not_join():
    animals = LabelSpace.from_names(["mouse", "cat"], name="animals")
    office = LabelSpace.from_names(["mouse", "keyboard"], name="office")
    joint = joint_label_space([animals, office], apart=["office/mouse"])
    assert joint.label_space.names == ("mouse", "cat", "mouse (office)", "keyboard")
    assert "stays apart" in joint.report()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"same": [["cat", "dgo"]]}, "'dgo', which no class is called.*'dog'"),
        ({"same": [["cat"]]}, "two or more names"),
        ({"apart": ["first/dgo"]}, "expected 'space/class'.*'first/dog'"),
    ],
)
def test_wrong_overrides_of_a_joint_space_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        joint_label_space([LabelSpace.from_names(["cat", "dog"], name="first")], **options)


def test_a_part_holds_only_the_classes_that_its_space_annotates():
    first = LabelSpace.from_names(["sofa|couch", "cat"], name="first")
    second = LabelSpace.from_names(["dog", "couch"], name="second")
    space, places = joint_label_space([first, second]).part(1)
    assert space.names == ("sofa", "dog")
    assert places == (1, 0)


def test_a_class_agnostic_space_adds_no_class():
    joint = joint_label_space([builtin_label_space("davis"), LabelSpace.from_names(["cat"])])
    assert joint.label_space.names == ("cat",)
    assert joint.index_maps == ((-1,), (0,))
    with pytest.raises(ValueError, match="no space with classes"):
        joint_label_space([builtin_label_space("davis")])


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Cat_or_Dog", ("cat", "dog")),
        ("cell phone/mobile", ("cell phone", "mobile")),
        ("traffic_light", ("traffic light",)),
        ("a, b ,,a", ("a", "b", "a")),
    ],
)
def test_split_names_reads_the_spellings_of_data_sets(text, parts):
    assert split_names(text) == parts
