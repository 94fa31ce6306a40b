"""The pipeline: one picture, a list, a generator; the same answers however they are batched."""

from __future__ import annotations

import logging
import types

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline
from transformers.pipelines import PIPELINE_REGISTRY

import omg_transformers
from omg_transformers import OMGSegConfig, OMGSegImageProcessor, OMGSegModel, OMGSegPipeline, OMGSegProcessor
from omg_transformers.labels import LabelSpace, Vocabulary
from omg_transformers.structures import Segments

from .test_model import BACKBONES

NAMES = ["person", "dog", "grass", "sky"]
SIZES = [(50, 70), (80, 40), (33, 99), (64, 64)]
TASKS = ["semantic", "instance", "panoptic"]


def build(**config) -> OMGSegPipeline:
    torch.manual_seed(0)
    # logit_scale 5: a random model whose classes are not all certain finds something in every picture.
    model = OMGSegModel(OMGSegConfig.tiny(default_task="panoptic", logit_scale=5.0, **config)).eval()
    vocabulary = Vocabulary.from_table(NAMES, torch.randn(len(NAMES), 16))
    space = LabelSpace.from_names(["person", "grass"])
    processor = OMGSegProcessor(OMGSegImageProcessor(size={"shortest_edge": 64}), space, vocabulary)
    return OMGSegPipeline(model=model, processor=processor, device="cpu")


@pytest.fixture(scope="module")
def pipe() -> OMGSegPipeline:
    return build()


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


def same(first: list[dict], second: list[dict], *, score: float = 1e-4, pixels: float = 0.01) -> bool:
    """Equal answers; a pixel whose two best classes are equal to the last bit may fall either way."""
    return len(first) == len(second) and all(
        one["label"] == other["label"]
        and one["id"] == other["id"]
        and abs(one["score"] - other["score"]) < score
        and (np.asarray(one["mask"]) != np.asarray(other["mask"])).mean() < pixels
        for one, other in zip(first, second, strict=True)
    )


@pytest.mark.parametrize("task", TASKS)
def test_the_output_is_that_of_the_stock_pipeline_plus_ids_and_boxes(pipe, pictures, task):
    answer = pipe(pictures[0], task=task)
    assert answer
    for segment in answer:
        assert set(segment) == {"label", "score", "mask", "id", "box", "is_thing"}
        assert segment["label"] in ("person", "grass")
        assert segment["is_thing"] == (segment["label"] == "person")
        assert 0 <= segment["score"] <= 1
        assert segment["mask"].mode == "L"
        assert segment["mask"].size == (70, 50)
        mask = np.asarray(segment["mask"])
        assert set(np.unique(mask)) <= {0, 255}
        if mask.any():
            assert Image.fromarray(mask).getbbox() == tuple(segment["box"].values())
    assert len({segment["id"] for segment in answer}) == len(answer)


@pytest.mark.parametrize("task", TASKS)
def test_answers_do_not_depend_on_the_batch(pipe, pictures, task):
    alone = [pipe(picture, task=task) for picture in pictures]
    assert any(alone)
    together = pipe(pictures, task=task, batch_size=3)
    assert all(same(one, other) for one, other in zip(alone, together, strict=True))


@pytest.mark.parametrize("kind", BACKBONES)
def test_answers_do_not_depend_on_the_batch_with_any_kind_of_backbone(pictures, kind):
    pipe = build(**BACKBONES[kind])
    assert pipe.model.config.backbone_pads_safely == ("swin" not in kind)
    question = {"task": "instance", "labels": ["dog", "person"], "max_per_image": 12}
    pictures = [*pictures, pictures[3]]
    alone = [pipe.segment([picture], **question)[0] for picture in pictures]
    for one, other in zip(alone, pipe.segment(pictures, **question), strict=True):
        assert len(one) == len(other) > 0
        assert one.labels.tolist() == other.labels.tolist()
        torch.testing.assert_close(one.scores, other.scores, atol=1e-4, rtol=0)
        for index in range(len(one)):
            # A logit may fall to the other side of zero: of pixels at the very edge only.
            assert (one.mask(index) != other.mask(index)).float().mean() < 1e-3


def test_a_backbone_that_cannot_take_padding_gets_batches_of_one_size():
    class Recorder(torch.nn.Module):
        """Notes the sizes of the batches that reach the model."""

        def __init__(self, model):
            super().__init__()
            self.model, self.config, self.device, self.dtype, self.shapes = (
                model,
                model.config,
                model.device,
                model.dtype,
                [],
            )

        def forward(self, **inputs):
            self.shapes.append(tuple(inputs["pixel_values"].shape))
            assert inputs["pixel_mask"].flatten(1).any(1).all()
            return self.model(**inputs)

    pipe = build()
    pipe.model.config.backbone_pads_safely = False
    pipe.model = recorder = Recorder(pipe.model)
    same_size, other = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 160, 3), np.uint8)
    assert len(pipe([same_size, other, same_size], batch_size=3)) == 3
    assert sorted(recorder.shapes) == [(1, 3, 64, 160), (2, 3, 64, 64)]


def test_a_generator_is_answered_lazily(pipe, pictures):
    read = []

    def stream():
        for picture in pictures:
            read.append(1)
            yield picture

    answers = pipe(stream(), batch_size=1)
    assert isinstance(answers, types.GeneratorType)
    first = next(answers)
    assert len(read) < len(pictures)
    assert same(first, pipe(pictures[0]))
    assert len(list(answers)) == len(pictures) - 1


def test_any_iterator_is_a_stream(pipe, pictures):
    answers = pipe(map(Image.fromarray, pictures), batch_size=3)
    assert isinstance(answers, types.GeneratorType)
    assert all(same(one, other) for one, other in zip(answers, pipe(pictures), strict=True))


@pytest.mark.parametrize("empty", [[], ()])
def test_no_pictures_give_no_answers(pipe, empty):
    assert pipe(empty) == []


def test_a_tuple_is_a_list(pipe, pictures):
    assert len(pipe(tuple(pictures[:2]))) == 2


def test_calling_without_a_picture_says_so(pipe):
    with pytest.raises(ValueError, match="without a picture"):
        pipe()


def test_every_form_of_a_picture_is_taken(pipe, pictures, tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(pictures[0]).save(path)
    expected = pipe(pictures[0])
    for form in (path, str(path), path.read_bytes(), Image.open(path), torch.from_numpy(pictures[0])):
        assert same(pipe(form), expected, score=1e-6)


def test_names_are_chosen_per_call(pipe, pictures):
    answer = pipe(pictures[0], task="semantic", labels=["sky", "dog"])
    assert {segment["label"] for segment in answer} <= {"sky", "dog"}
    assert {segment["label"] for segment in pipe(pictures[0], task="semantic")} <= {"person", "grass"}


def test_the_spaces_of_the_checkpoint_are_known_by_name(pictures):
    pipe = build(label_spaces={"weather": LabelSpace.from_names(["sky"]).to_dict()})
    assert {segment["label"] for segment in pipe(pictures[0], task="semantic", labels="weather")} == {"sky"}


def test_the_threshold_leaves_out_what_scores_below(pipe, pictures):
    everything = pipe(pictures[0], task="instance")
    limit = sorted(segment["score"] for segment in everything)[len(everything) // 2]
    kept = pipe(pictures[0], task="instance", threshold=limit)
    assert [segment["score"] for segment in kept] == [s["score"] for s in everything if s["score"] > limit]


def test_parameters_of_the_constructor_hold_for_every_call(pictures):
    template = build()
    pipe = OMGSegPipeline(
        model=template.model, processor=template.processor, device="cpu", subtask="semantic", labels=["dog"]
    )
    assert {segment["label"] for segment in pipe(pictures[0])} == {"dog"}
    assert {segment["label"] for segment in pipe(pictures[0], labels=["sky"])} == {"sky"}


def test_options_of_the_checkpoint_hold_unless_the_call_gives_its_own(pictures):
    pipe = build(head_options={"instance": {"max_per_image": 3}})
    assert len(pipe(pictures[0], task="instance", labels=["dog"])) == 3
    assert len(pipe(pictures[0], task="instance", labels=["dog"], max_per_image=8)) == 8
    assert len(pipe.segment(pictures[:1], task="instance", labels=["dog"])[0]) == 3


def test_none_is_an_option_that_is_stronger_than_the_checkpoints(pictures):
    pipe = build(head_options={"instance": {"mask_nms_threshold": 0.0}})
    few = pipe(pictures[0], task="instance", labels=["dog"])
    assert len(few) < len(pipe(pictures[0], task="instance", labels=["dog"], mask_nms_threshold=None))


def test_options_of_the_checkpoint_that_the_head_does_not_know_are_named(pictures):
    pipe = build(head_options={"instance": {"max_per_imag": 3}})
    with pytest.raises(TypeError, match=r"checkpoint's head_options.*Did you mean 'max_per_image'"):
        pipe(pictures[0], task="instance")


def test_options_of_the_checkpoint_are_saved_with_it(pictures, tmp_path):
    build(head_options={"instance": {"max_per_image": 3}}).save_pretrained(tmp_path)
    loaded = pipeline("omg-segmentation", model=str(tmp_path), device="cpu")
    assert len(loaded(pictures[0], task="instance", labels=["dog"])) == 3


def test_points_and_boxes_are_answered_by_the_head_for_prompts(pipe, pictures):
    boxes = [[1, 2, 30, 40], [5, 5, 60, 45]]
    answer = pipe(pictures[0], input_boxes=boxes)
    assert len(answer) == 2
    assert {segment["label"] for segment in answer} == {None}
    mixed = pipe(
        [{"image": pictures[0], "input_boxes": boxes}, {"image": pictures[1], "input_points": [[[3, 4]]]}], batch_size=2
    )
    assert [len(one) for one in mixed] == [2, 1]
    assert same(mixed[0], answer)


def test_prompts_stay_exact_in_half_precision(pictures):
    pipe = build()
    pipe.model.to(torch.bfloat16)
    seen = []
    pipe.model.register_forward_pre_hook(lambda _, args, inputs: seen.append(inputs), with_kwargs=True)
    pipe(pictures[0], input_points=[[[3.3, 4.7]]])
    assert seen[0]["pixel_values"].dtype == torch.bfloat16
    torch.testing.assert_close(
        seen[0]["input_points"].flatten(), torch.tensor([3.3 * 90 / 70, 4.7 * 64 / 50]), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"task": "panoptik"}, LookupError, "Did you mean 'panoptic'"),
        ({"threshold": 3}, ValueError, "threshold is 3"),
        ({"threshold": "high"}, ValueError, "threshold is 'high'"),
        ({"threshold": {"zebra": 0.5}}, ValueError, "no class 'zebra'"),
        ({"input_points": [[[1, 2]], [[3, 4], [5]]]}, ValueError, "input_points is ragged"),
        ({"treshold": 0.3}, TypeError, "Did you mean 'threshold'"),
        ({"labels": ["cat"]}, ValueError, "cat"),
        ({"labels": []}, ValueError, "empty"),
        ({"labels": ["dog", "dog"]}, ValueError, "repeats"),
        ({"task": "panoptic", "input_boxes": [[1, 2, 3, 4]]}, ValueError, "takes no points or boxes"),
        ({"task": "interactive"}, ValueError, "needs a prompt"),
        ({"input_boxes": [[1, 2, 300, 4]]}, ValueError, "outside the picture"),
    ],
)
def test_wrong_arguments_are_named(pipe, pictures, arguments, error, message):
    with pytest.raises(error, match=message):
        pipe(pictures[0], **arguments)


def test_a_dictionary_with_other_keys_is_refused(pipe, pictures):
    with pytest.raises(ValueError, match=r"\['boxes', 'image'\]"):
        pipe({"image": pictures[0], "boxes": []})


def test_segment_gives_segments_in_one_pass(pipe, pictures):
    results = pipe.segment(pictures, task="panoptic")
    assert all(isinstance(result, Segments) for result in results)
    assert [result.size for result in results] == SIZES


def test_the_default_model_is_taken_in_silence(pipe, tmp_path, monkeypatch):
    pipe.save_pretrained(tmp_path)
    monkeypatch.setattr(omg_transformers, "default_checkpoint", lambda: tmp_path)
    task = PIPELINE_REGISTRY.supported_tasks["omg-segmentation"]
    monkeypatch.setitem(task, "default", {"model": (str(tmp_path), None)})
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    transformers_logger = logging.getLogger("transformers")
    transformers_logger.addHandler(handler)
    try:
        assert isinstance(pipeline("omg-segmentation", device="cpu"), OMGSegPipeline)
        monkeypatch.setattr(omg_transformers, "default_checkpoint", lambda: "elsewhere")
        assert not said
        pipeline("omg-segmentation", device="cpu")
    finally:
        transformers_logger.removeHandler(handler)
    assert any("No model was supplied" in text for text in said)  # so the test hears what transformers says


def test_saving_and_loading_by_the_task_name(pipe, pictures, tmp_path):
    pipe.save_pretrained(tmp_path)
    assert "custom_pipelines" not in (tmp_path / "config.json").read_text()
    assert not list(tmp_path.glob("*.py"))
    loaded = pipeline("omg-segmentation", model=str(tmp_path), device="cpu")
    assert isinstance(loaded, OMGSegPipeline)
    assert same(loaded(pictures[0]), pipe(pictures[0]), score=2e-3, pixels=0.02)


def test_post_process_by_hand_gives_the_pipelines_answer(pipe, pictures):
    processor = pipe.processor
    inputs = processor(pictures[:2])
    with torch.no_grad():
        outputs = pipe.model(**inputs)
    results = processor.post_process(outputs, task="panoptic", target_sizes=inputs["original_sizes"])
    expected = pipe.segment(pictures[:2], task="panoptic")
    assert [result.scores.tolist() for result in results] == [result.scores.tolist() for result in expected]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"task": "semantics"}, LookupError, "semantic"),
        ({"target_sizes": [(50, 70)]}, ValueError, "1 entries but the outputs are for 2"),
        ({"target_sizes": (50, 70)}, ValueError, "one .height, width. per picture"),
        ({"target_sizes": [(50, 70), (0, 40)]}, ValueError, "at least 1"),
        ({"target_sizes": [(50, 70), (8.5, 40)]}, ValueError, "whole numbers"),
        ({"target_sizes": torch.tensor([50, 70])}, ValueError, "one .height, width. per picture"),
        ({"labels": ["dog"]}, ValueError, "for 2 classes but labels has 1"),
    ],
)
def test_wrong_arguments_of_post_process_are_named(pipe, pictures, arguments, error, message):
    inputs = pipe.processor(pictures[:2])
    with torch.no_grad():
        outputs = pipe.model(**inputs)
    arguments = {"task": "panoptic", "target_sizes": inputs["original_sizes"], **arguments}
    with pytest.raises(error, match=message):
        pipe.processor.post_process(outputs, **arguments)


def test_outputs_without_classes_are_named(pipe, pictures):
    inputs = pipe.processor(pictures[:1])
    del inputs["class_embeds"]
    with torch.no_grad():
        outputs = pipe.model(**inputs)
    with pytest.raises(ValueError, match="call the processor with labels"):
        pipe.processor.post_process(outputs, task="semantic", target_sizes=inputs["original_sizes"])


def test_logits_of_a_picture_do_not_depend_on_its_neighbours(pipe, pictures):
    def answer(images):
        inputs = pipe.processor(images)
        with torch.no_grad():
            return inputs, pipe.model(**inputs)

    _, together = answer(pictures)
    for index, picture in enumerate(pictures):
        inputs, alone = answer([picture])
        height, width = (int(side) // 4 for side in inputs["pixel_mask"][0].nonzero().amax(0) + 1)
        torch.testing.assert_close(together.class_logits[index], alone.class_logits[0], atol=1e-4, rtol=0)
        torch.testing.assert_close(
            together.mask_logits[index, ..., :height, :width],
            alone.mask_logits[0, ..., :height, :width],
            atol=1e-4,
            rtol=0,
        )


def test_prompts_of_all_kinds_go_through_one_batch(pipe, pictures):
    mask = np.zeros(SIZES[0], bool)
    mask[10:30, 10:40] = True
    items = [
        {"image": pictures[0], "input_points": [[[3, 4], [9, 9]], [[5, 6]]], "input_labels": [[1, 0], [1]]},
        {"image": pictures[0], "input_masks": [mask, None], "input_boxes": [[-10] * 4, [1, 2, 30, 40]]},
        {"image": pictures[0], "input_masks": [mask]},
    ]
    assert [len(answer) for answer in pipe(items, batch_size=3)] == [2, 2, 1]


def test_several_masks_per_prompt_keep_the_one_asked_for_first(pipe, pictures):
    single = pipe(pictures[0], input_points=[[[3, 4]], [[20, 30]]])
    several = pipe(pictures[0], input_points=[[[3, 4]], [[20, 30]]], multimask_output=True)
    assert len(several) == 6
    masks = ([np.asarray(answer["mask"]) for answer in answers] for answers in (several[::3], single))
    assert all((one == other).all() for one, other in zip(*masks, strict=True))


def test_names_given_with_a_prompt_name_its_mask(pipe, pictures):
    (answer,) = pipe(pictures[0], input_points=[[[3, 4]]], labels=["dog", "sky"])
    assert answer["label"] in ("dog", "sky")
    (answer,) = pipe(pictures[0], input_points=[[[3, 4]]])
    assert answer["label"] is None


def test_a_threshold_by_name_holds_for_that_name_alone(pipe, pictures):
    free = pipe(pictures[0], task="instance", labels=["person", "dog"], threshold=0.0)
    count = {name: sum(answer["label"] == name for answer in free) for name in ("person", "dog")}
    assert min(count.values()) > 0
    strict = pipe(pictures[0], task="instance", labels=["person", "dog"], threshold={"person": 1.0, "dog": 0.0})
    assert [answer["label"] for answer in strict] == ["dog"] * count["dog"]
