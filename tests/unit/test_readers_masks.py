"""Pictures beside masks, in folders and in tables of Hugging Face."""

from __future__ import annotations

import io
import json
import pickle

import numpy as np
import pytest
from PIL import Image

from omg_transformers.data import (
    ProceduralScenes,
    SampleError,
    as_iterable_dataset,
    detect_layouts,
    open_layout,
    procedural_label_space,
)
from omg_transformers.data.readers.mask_folder import read_mask_folder
from omg_transformers.data.regions import region_area
from omg_transformers.labels import LabelSpace

SIZE = (6, 10)


def halves(left, right):
    values = np.full(SIZE, left, np.uint8)
    values[:, 5:] = right
    return values


def folder(root, values, *, images="images", masks="masks", name="a"):
    for place in (root / images, root / masks):
        place.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE[::-1]).save(root / images / f"{name}.jpg")
    Image.fromarray(values).save(root / masks / f"{name}.png")
    return root


def found(sample):
    names = sample.label_space.names
    return [(names[s.category_id], region_area(s.masks[0])) for s in sample.annotation.segments]


@pytest.mark.parametrize("inside", [1, 255])
def test_binary_masks_show_an_object_and_background(tmp_path, inside):
    sample = open_layout("mask_folder", folder(tmp_path, halves(0, inside))).sample(0)
    assert found(sample) == [("background", 30), ("object", 30)]
    assert sample.tasks == ("interactive", "semantic")


def test_background_may_be_left_out(tmp_path):
    source = read_mask_folder(folder(tmp_path, halves(0, 255)), background=False)
    assert found(source.sample(0)) == [("object", 30)] and source.tasks == ("interactive",)


def test_a_mask_of_one_bit_is_binary(tmp_path):
    folder(tmp_path, halves(0, 1))
    Image.fromarray(halves(0, 1).astype(bool)).save(tmp_path / "masks" / "a.png")
    assert found(read_mask_folder(tmp_path).sample(0)) == [("background", 30), ("object", 30)]


def test_grey_stored_as_colours_is_read(tmp_path):
    folder(tmp_path, np.repeat(halves(0, 255)[..., None], 3, -1))
    assert found(read_mask_folder(tmp_path).sample(0)) == [("background", 30), ("object", 30)]


def test_names_of_a_text_file_count_from_zero(tmp_path):
    (folder(tmp_path, halves(1, 2)) / "classes.txt").write_text("sky\ngrass\ndog\n")
    source = read_mask_folder(tmp_path)
    assert found(source.sample(0)) == [("grass", 30), ("dog", 30)]
    assert source.label_space.is_thing == (False, False, True)


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    folder(tmp_path, halves(0, 1))
    (tmp_path / "classes.txt").write_text("\ufeffgrass\nsky\n", encoding="utf-8")
    assert read_mask_folder(tmp_path).label_space.names == ("grass", "sky")


def test_names_in_another_encoding_are_named(tmp_path):
    folder(tmp_path, halves(0, 1))
    (tmp_path / "classes.txt").write_bytes("café\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"classes\.txt is not UTF-8"):
        read_mask_folder(tmp_path)


def test_names_of_a_json_file_are_read(tmp_path):
    (folder(tmp_path, halves(7, 0)) / "id2label.json").write_text(json.dumps({"7": "dog"}))
    assert found(read_mask_folder(tmp_path).sample(0)) == [("background", 30), ("dog", 30)]


def test_a_palette_counts_by_its_numbers(tmp_path):
    folder(tmp_path, halves(0, 1))
    palette = Image.fromarray(halves(2, 1)).convert("P")
    palette.putdata(halves(2, 1).ravel().tolist())
    palette.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0])
    palette.save(tmp_path / "masks" / "a.png")
    assert found(read_mask_folder(tmp_path, names=["sky", "cat", "dog"]).sample(0)) == [("cat", 30), ("dog", 30)]


def test_255_is_void_and_so_are_values_with_such_a_name(tmp_path):
    source = read_mask_folder(folder(tmp_path, halves(255, 3)), names={1: "dog", 3: "unlabelled"})
    sample = source.sample(0)
    assert found(sample) == [] and region_area(sample.annotation.void[0]) == 60


def test_void_values_may_be_named(tmp_path):
    source = read_mask_folder(folder(tmp_path, halves(11, 0)), names=["sky", "car"], void_ids=[11])
    assert region_area(source.sample(0).annotation.void[0]) == 30


def test_a_named_value_may_still_be_void(tmp_path):
    source = read_mask_folder(folder(tmp_path, halves(2, 0)), names=["sky", "car", "other"], void_ids=[2])
    assert source.label_space.names == ("sky", "car") and region_area(source.sample(0).annotation.void[0]) == 30


def test_255_may_have_a_name(tmp_path):
    assert found(read_mask_folder(folder(tmp_path, halves(255, 255)), names={255: "cat"}).sample(0)) == [("cat", 60)]


def test_a_single_name_fits_binary_masks_of_255(tmp_path):
    source = read_mask_folder(folder(tmp_path, halves(0, 255)), names=["background", "polyp"])
    assert found(source.sample(0)) == [("background", 30), ("polyp", 30)]


def test_a_label_space_without_background_leaves_it_out(tmp_path):
    space = LabelSpace.from_names(["thing", "object"])
    assert found(read_mask_folder(folder(tmp_path, halves(0, 255)), label_space=space).sample(0)) == [("object", 30)]


@pytest.mark.parametrize(
    ("images", "masks", "split"),
    [
        ("images", "masks", "all"),
        ("imgs", "labels", "all"),
        ("images/val", "annotations/val", "val"),
        ("val/images", "val/masks", "val"),
        ("val", "val_labels", "val"),
    ],
)
def test_folders_are_found_by_their_names(tmp_path, images, masks, split):
    folder(tmp_path, halves(0, 1), images=images, masks=masks)
    assert [(one.layout.name, one.splits) for one in detect_layouts(tmp_path)] == [("mask_folder", (split,))]
    assert open_layout("mask_folder", tmp_path).num_samples == 1


def test_folders_may_be_given(tmp_path):
    folder(tmp_path, halves(0, 1), images="x", masks="deep/y")
    assert read_mask_folder(tmp_path, pictures="x", masks="deep/y").num_samples == 1


def test_masks_may_end_in_mask(tmp_path):
    folder(tmp_path, halves(0, 1))
    (tmp_path / "masks" / "a.png").rename(tmp_path / "masks" / "a_mask.png")
    assert read_mask_folder(tmp_path).sample(0).sample_id == "a"


# -- bad input


def test_values_without_names_are_asked_for(tmp_path):
    with pytest.raises(ValueError, match=r"values \[3, 4\] of its masks mean.*classes\.txt"):
        read_mask_folder(folder(tmp_path, halves(3, 4)))


def test_a_value_without_a_name_is_named(tmp_path):
    with pytest.raises(SampleError, match=r"masks/a\.png holds the values 4, which stand for no class"):
        read_mask_folder(folder(tmp_path, halves(0, 4)), names=["sky", "cat"]).sample(0)


def test_a_mask_of_colours_is_refused(tmp_path):
    colors = np.zeros((*SIZE, 3), np.uint8)
    colors[..., 0] = 9
    source = read_mask_folder(folder(tmp_path, colors), names=["cat"])
    with pytest.raises(SampleError, match=r"masks/a\.png has mode RGB: expected one whole number per pixel"):
        source.sample(0)


def test_a_damaged_mask_is_named(tmp_path):
    (folder(tmp_path, halves(0, 1)) / "masks" / "a.png").write_bytes(b"\x89PNG")
    with pytest.raises(SampleError, match=r"masks/a\.png is no readable mask"):
        read_mask_folder(tmp_path).sample(0)


def test_a_mask_of_another_size_is_named(tmp_path):
    with pytest.raises(SampleError, match=r"masks/a\.png is 3 high and 10 wide"):
        read_mask_folder(folder(tmp_path, halves(0, 1)[:3])).sample(0)


def test_a_picture_without_a_mask_is_named(tmp_path):
    Image.new("RGB", (4, 4)).save(folder(tmp_path, halves(0, 1)) / "images" / "b.jpg")
    with pytest.raises(SampleError, match=r"masks/b\.png does not exist"):
        read_mask_folder(tmp_path).sample(1)


def test_a_mask_without_a_picture_is_named(tmp_path):
    Image.fromarray(halves(0, 1)).save(folder(tmp_path, halves(0, 1)) / "masks" / "b.png")
    with pytest.raises(SampleError, match=r"images/b\.jpg .*does not exist"):
        read_mask_folder(tmp_path).sample(1)


def test_a_folder_without_masks_says_what_is_expected(tmp_path):
    with pytest.raises(ValueError, match=r"no pictures beside masks.*images/ and masks/"):
        read_mask_folder(tmp_path)


def test_one_folder_alone_is_refused(tmp_path):
    with pytest.raises(ValueError, match="give both folders, or neither"):
        read_mask_folder(tmp_path, pictures="x")


def test_names_without_a_class_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no class beside background and void"):
        read_mask_folder(folder(tmp_path, halves(0, 1)), names=["background"])


# -- Hugging Face


def encoded(values, kind):
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, format=kind)
    return {"bytes": buffer.getvalue(), "path": None}


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """The cache of `datasets`, away from the user's own."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def table(*masks, column="label"):
    from datasets import Dataset, Features
    from datasets import Image as ImageFeature

    rows = {
        "image": [encoded(np.zeros((*SIZE, 3), np.uint8), "JPEG") for _ in masks],
        column: [encoded(mask, "PNG") for mask in masks],
        "text": ["not read"] * len(masks),
    }
    features = Features(
        {"image": ImageFeature(), column: ImageFeature(), "text": Dataset.from_dict(rows).features["text"]}
    )
    return Dataset.from_dict(rows, features=features)


def test_a_saved_dataset_of_pictures_and_masks_is_read(tmp_path):
    table(halves(1, 2), halves(0, 255), column="annotation").save_to_disk(tmp_path / "set")
    (tmp_path / "set" / "id2label.json").write_text(json.dumps({"0": "sky", "1": "cat", "2": "dog"}))
    source = open_layout("hf_dataset", tmp_path / "set")
    assert found(source.sample(0)) == [("cat", 30), ("dog", 30)]
    assert found(source.sample(1)) == [("sky", 30)] and region_area(source.sample(1).annotation.void[0]) == 30
    assert source.tasks == ("interactive", "semantic") and isinstance(source.sample(0).frames[0], bytes)


def test_a_saved_dataset_can_be_sent_to_workers(tmp_path):
    table(halves(0, 1)).save_to_disk(tmp_path / "set")
    source = open_layout("hf_dataset", tmp_path / "set")
    assert pickle.loads(pickle.dumps(source)).sample(0).annotation == source.sample(0).annotation


def test_splits_of_a_dataset_dict_are_found(tmp_path):
    from datasets import DatasetDict

    DatasetDict({"train": table(halves(0, 1)), "test": table(halves(0, 1))}).save_to_disk(tmp_path / "set")
    (detection,) = detect_layouts(tmp_path / "set")
    assert (detection.layout.name, detection.splits) == ("hf_dataset", ("test", "train"))
    assert found(open_layout("hf_dataset", tmp_path / "set", "test").sample(0)) == [("background", 30), ("object", 30)]


@pytest.mark.parametrize(
    "file", ["train-00000-of-00001.parquet", "data/train-00000-of-00001.parquet", "train/0000.parquet"]
)
def test_parquet_files_are_found_and_read_by_number(tmp_path, cache, file):
    path = tmp_path / "set" / file
    path.parent.mkdir(parents=True)
    table(halves(0, 1), halves(1, 1)).to_parquet(path)
    (detection,) = detect_layouts(tmp_path / "set")
    assert (detection.layout.name, detection.splits) == ("hf_dataset", ("train",))
    assert found(open_layout("hf_dataset", tmp_path / "set", "train").sample(1)) == [("object", 60)]


def test_rows_of_samples_give_the_samples_back(tmp_path):
    from datasets import Dataset

    scenes = ProceduralScenes((24, 32), seed=3)
    rows = list(as_iterable_dataset(first_three(scenes), num_shards=1))
    Dataset.from_list(rows).save_to_disk(tmp_path / "set")
    with pytest.raises(ValueError, match=r"label_space\.json"):
        open_layout("hf_dataset", tmp_path / "set")
    (tmp_path / "set" / "label_space.json").write_text(json.dumps(procedural_label_space().to_dict()))
    source = open_layout("hf_dataset", tmp_path / "set")
    assert (source.num_samples, source.tasks) == (3, scenes.tasks)
    assert [sample.annotation for sample in source] == [scenes.sample(index).annotation for index in range(3)]


def test_rows_of_another_label_space_are_named(tmp_path):
    from datasets import Dataset

    rows = list(as_iterable_dataset(first_three(ProceduralScenes((24, 32), seed=3)), num_shards=1))
    Dataset.from_list(rows).save_to_disk(tmp_path / "set")
    source = open_layout("hf_dataset", tmp_path / "set", label_space=LabelSpace.from_names(["one"]))
    with pytest.raises(SampleError, match=r"row \d has class \d+, but the label space 'custom' has 1"):
        list(source)


def first_three(scenes):
    class Three:
        label_space, tasks, num_samples = scenes.label_space, scenes.tasks, 3
        sample = staticmethod(scenes.sample)

    return Three()


def test_columns_that_are_not_there_are_asked_for(tmp_path):
    table(halves(0, 1), column="truth").save_to_disk(tmp_path / "set")
    with pytest.raises(ValueError, match=r"columns \['image', 'truth', 'text'\]: say with mask_column="):
        open_layout("hf_dataset", tmp_path / "set")
    assert open_layout("hf_dataset", tmp_path / "set", mask_column="truth").num_samples == 1


def test_a_row_of_two_sizes_is_named(tmp_path):
    table(halves(0, 1)[:3]).save_to_disk(tmp_path / "set")
    with pytest.raises(SampleError, match=r"row 0 has a picture of \(6, 10\) and a mask of \(3, 10\)"):
        open_layout("hf_dataset", tmp_path / "set").sample(0)


def test_a_row_with_a_damaged_mask_is_named(tmp_path, cache):
    broken = table(halves(0, 1), halves(0, 1))
    rows = broken.with_format("arrow")[:].to_pydict()
    rows["label"][1] = {"bytes": b"no picture", "path": None}
    from datasets import Dataset

    Dataset.from_dict(rows, features=broken.features).save_to_disk(tmp_path / "set")
    source = open_layout("hf_dataset", tmp_path / "set")
    with pytest.raises(SampleError, match="row 1 is no readable mask"):
        source.sample(1)
