"""Pictures, clips, names and prompts become the model's inputs; the processor survives saving."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from omg_transformers.labels import LabelSpace, Vocabulary, builtin_label_space
from omg_transformers.processing import OMGSegImageProcessor, OMGSegProcessor
from omg_transformers.processing.grouping import group_by_key

NAMES = ["person", "dog", "sofa", "couch", "grass"]


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def processor() -> OMGSegProcessor:
    vectors = torch.randn(len(NAMES), 8, generator=torch.Generator().manual_seed(0))
    return OMGSegProcessor(
        OMGSegImageProcessor(size={"shortest_edge": 64, "longest_edge": 128}),
        label_space=LabelSpace.from_names(["person", "dog", "grass"]),
        vocabulary=Vocabulary.from_table(NAMES, vectors),
    )


def test_the_original_preprocessing_is_reproduced(golden_model):
    golden = load_file(golden_model / "image_forward.safetensors")
    inputs = OMGSegImageProcessor()(list(golden["image_u8"]), do_resize=False)
    assert inputs["pixel_values"].shape == golden["pixel_values"].shape
    torch.testing.assert_close(inputs["pixel_values"], golden["pixel_values"], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (640, 853)), ((640, 480), (853, 640)), ((400, 1333), (400, 1333)), ((1, 1), (4, 4)),
        ((10, 20000), (1, 1333)), ((20000, 10), (1333, 1)), ((100, 100), (400, 400)),
    ],
)  # fmt: skip
def test_resizing_keeps_the_shape_within_its_limits(size, expected):
    assert OMGSegImageProcessor().resized_size(size) == expected


def test_padding_is_zero_after_normalisation_at_right_and_bottom():
    white, small = np.full((50, 70, 3), 255, np.uint8), np.full((33, 20, 3), 255, np.uint8)
    inputs = OMGSegImageProcessor()([white, small], do_resize=False)
    assert inputs["pixel_values"].shape == (2, 3, 64, 96)
    mask = inputs["pixel_mask"]
    assert mask.dtype == torch.bool
    assert mask[0].sum() == 50 * 70
    assert mask[1, :33, :20].all()
    assert mask[1].sum() == 33 * 20
    assert (inputs["pixel_values"].permute(0, 2, 3, 1)[~mask] == 0).all()
    assert (inputs["pixel_values"].permute(0, 2, 3, 1)[mask] > 2).all()
    assert inputs["original_sizes"].tolist() == [[50, 70], [33, 20]]


@pytest.mark.parametrize("size", [(1, 1), (10, 2000), (2000, 10), (1, 64)])
def test_extreme_pictures_make_finite_inputs(size):
    inputs = OMGSegImageProcessor()(picture(*size))
    assert inputs["pixel_values"].isfinite().all()
    assert inputs["pixel_mask"].any()
    assert all(side % 32 == 0 for side in inputs["pixel_values"].shape[-2:])


def test_a_picture_alone_and_in_a_batch_has_the_same_pixels():
    images = [picture(40, 60), picture(90, 30), picture(7, 5)]
    processor = OMGSegImageProcessor(size={"shortest_edge": 48})
    together = processor(images)
    for index, image in enumerate(images):
        alone = processor(image)
        inside = together["pixel_mask"][index]
        assert inside.sum() == alone["pixel_mask"].sum()
        torch.testing.assert_close(
            together["pixel_values"][index][:, inside],
            alone["pixel_values"][0][:, alone["pixel_mask"][0]],
            atol=0,
            rtol=0,
        )


def test_pictures_of_equal_padded_size_are_grouped():
    processor = OMGSegImageProcessor(size={"shortest_edge": 32})
    sizes = [processor.padded_size(size) for size in [(32, 40), (40, 32), (32, 60), (64, 80)]]
    assert group_by_key(sizes) == [[0, 2, 3], [1]]
    assert processor([picture(32, 60)])["pixel_values"].shape[-2:] == sizes[2]


def test_a_bad_picture_in_a_batch_is_named_by_its_place():
    with pytest.raises(ValueError, match="0 bytes") as caught:
        OMGSegImageProcessor()([picture(4, 4), b"", picture(4, 4)])
    assert caught.value.__notes__ == ["It is images[1] of 3."]


def test_an_unknown_argument_is_named():
    with pytest.raises(TypeError, match="unknown argument 'sise'"):
        OMGSegImageProcessor()(picture(4, 4), sise=3)


@pytest.mark.parametrize(
    "bad", [{"size": {"max_height": 3, "max_width": 4}}, {"size_divisor": 0}, {"max_upscale": -1.0}]
)
def test_a_wrong_setting_is_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        OMGSegImageProcessor(**bad)


def test_no_picture_is_refused(processor):
    with pytest.raises(ValueError, match="images is empty"):
        processor([])
    with pytest.raises(ValueError, match="images= or videos="):
        processor()


def test_names_become_class_embeds_with_synonyms(processor):
    image = picture(20, 30)
    assert processor(image)["class_embeds"].shape == (3, 1, 8)
    embeds = processor(image, labels=["dog", "sofa|couch"])["class_embeds"]
    assert embeds.shape == (2, 2, 8)
    torch.testing.assert_close(embeds[0, 0], embeds[0, 1])
    torch.testing.assert_close(embeds.norm(dim=-1), torch.ones(2, 2))
    space = LabelSpace.from_names(["grass"])
    assert processor(image, labels=space)["class_embeds"].shape == (1, 1, 8)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "empty"), ([" "], "empty"), (["dog", "Dog"], "repeats"), (["dog|dog"], "repeats"), (["dogg"], "dog"),
        ("coco_panoptik", r"coco_panoptic"), ("dog", r"give a list: \['dog'\]"),
    ],
)  # fmt: skip
def test_bad_names_are_refused(processor, labels, message):
    with pytest.raises(ValueError, match=message):
        processor(picture(20, 30), labels=labels)


def test_a_built_in_space_is_known_by_its_name(processor):
    assert processor.resolve_labels("cityscapes") == builtin_label_space("cityscapes")


def test_names_without_a_vocabulary_say_what_to_do():
    bare = OMGSegProcessor(OMGSegImageProcessor())
    assert "class_embeds" not in bare(picture(8, 8))
    with pytest.raises(ValueError, match=r"no vocabulary.*from_open_clip"):
        bare(picture(8, 8), labels=["dog"])


def test_a_class_agnostic_space_needs_no_names(processor):
    assert "class_embeds" not in processor(picture(8, 8), labels="davis")


def test_clips_get_a_time_axis(processor):
    clips = [[picture(20, 30, seed) for seed in range(3)], [picture(30, 20, seed) for seed in range(3)]]
    inputs = processor(videos=clips)
    assert inputs["pixel_values"].shape == (2, 3, 3, 96, 96)
    assert inputs["pixel_mask"].shape == (2, 96, 96)
    assert inputs["original_sizes"].tolist() == [[20, 30], [30, 20]]
    alone = processor(clips[1][2])
    torch.testing.assert_close(inputs["pixel_values"][1, 2, :, :96, :64], alone["pixel_values"][0])


@pytest.mark.parametrize("clips", [[], [[]], [[picture(4, 4)], [picture(4, 4)] * 2]])
def test_clips_of_unequal_length_are_refused(processor, clips):
    with pytest.raises(ValueError, match="same number of frames"):
        processor(videos=clips)


def test_frames_of_one_clip_must_have_one_size(processor):
    with pytest.raises(ValueError, match="differ in size"):
        processor(videos=[[picture(4, 4), picture(4, 5)]])


def test_the_processor_survives_saving(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    loaded = OMGSegProcessor.from_pretrained(tmp_path)
    assert loaded.label_space == processor.label_space
    assert loaded.image_processor.to_dict() == processor.image_processor.to_dict()
    image = Image.fromarray(picture(20, 30))
    before, after = processor(image), loaded(image)
    assert set(before) == set(after)
    for key in before:
        torch.testing.assert_close(after[key], before[key], atol=2e-3, rtol=0)


def test_a_processor_without_vocabulary_survives_saving(tmp_path):
    OMGSegProcessor(OMGSegImageProcessor(max_upscale=2.0)).save_pretrained(tmp_path)
    loaded = OMGSegProcessor.from_pretrained(tmp_path)
    assert loaded.vocabulary is None
    assert loaded.label_space is None
    assert loaded.image_processor.max_upscale == 2.0
