"""What the video object head asks about clips in training: objects of the first frame, answered in all frames."""

from __future__ import annotations

import math

import pytest
import torch

from omg_head_video_object import VideoObjectHead
from omg_transformers.data import ProceduralScenes, collate
from omg_transformers.model import OMGSegConfig, OMGSegModel
from omg_transformers.ops.masks import encode_mask
from omg_transformers.plugins.contract import MakesQueryInputs
from omg_transformers.readout.drawn_prompts import mask_prompts
from omg_transformers.structures import Annotation, QueryOutput, QueryTargets, Segment, Segments
from omg_transformers.training.loss import LossSettings, SegmentationLoss
from omg_transformers.training.questions import Answers, make_question

HEAD = VideoObjectHead()
SIZE = (64, 96)
NAMES = ("input_masks", "input_boxes", "input_points")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def ask(targets, name):
    for seed in range(50):
        inputs, answers = HEAD.query_inputs(targets, size=SIZE, generator=generator(seed))
        if set(inputs) == {name}:
            return inputs[name], answers
    raise AssertionError(f"no seed of 50 asks by {name}")


def block(rows, columns):
    mask = torch.zeros(SIZE, dtype=torch.bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask


@pytest.fixture(scope="module")
def target():
    """Two objects that move right, and one that the first frame does not show."""
    first = torch.stack([block((4, 20), (8, 24)), block((32, 48), (40, 60)), block((0, 0), (0, 0))])
    second = torch.stack([block((4, 20), (40, 56)), block((32, 48), (70, 90)), block((52, 60), (4, 12))])
    return QueryTargets(torch.tensor([3, 5, 7]), torch.stack([first, second], dim=1))


def test_it_can_be_trained():
    assert isinstance(HEAD, MakesQueryInputs)


@pytest.mark.parametrize("name", NAMES)
def test_only_objects_of_the_first_frame_are_asked_for_and_all_frames_are_answered(target, name):
    inputs, (answer,) = ask([target], name)
    assert inputs.shape[:2] == (1, HEAD.num_prompts)
    assert sorted(set(answer.labels.tolist())) == [3, 5]
    for label, masks in zip(answer.labels.tolist(), answer.masks, strict=True):
        assert torch.equal(masks, target.masks[(3, 5).index(label)])


def test_points_lie_in_the_objects_first_mask(target):
    points, (answer,) = ask([target], "input_points")
    columns, rows = points[0, :, 0].long().unbind(-1)
    assert answer.masks[torch.arange(HEAD.num_prompts), 0, rows, columns].all()


def test_boxes_are_about_the_first_frame(target):
    boxes, (answer,) = ask([target], "input_boxes")
    true = {3: [8, 4, 24, 20], 5: [40, 32, 60, 48]}
    expected = torch.tensor([true[label] for label in answer.labels.tolist()], dtype=torch.float32)
    assert (boxes[0] - expected).abs().max() <= 0.05 * 20


def test_masks_are_the_objects_first_masks_by_cell(target):
    masks, (answer,) = ask([target], "input_masks")
    assert masks.shape[2:] == (SIZE[0] // 4, SIZE[1] // 4)
    assert torch.equal(masks[0], answer.masks[:, 0, ::4, ::4].float())


def test_an_empty_mask_is_asked_for_by_the_middle():
    (prompt,) = mask_prompts(block((0, 0), (0, 0))[None])
    expected = torch.zeros(16, 24)
    expected[4:12, 6:18] = 1
    assert torch.equal(prompt, expected)


@pytest.mark.parametrize("name", NAMES)
def test_a_clip_without_objects_is_asked_about_but_not_judged(target, name):
    nothing = QueryTargets(target.labels[:0], target.masks[:0])
    inputs, answers = ask([nothing, target], name)
    assert inputs.shape[:2] == (2, HEAD.num_prompts)
    assert answers[0].unknown.all()
    assert answers[0].labels.tolist() == [-1] * HEAD.num_prompts


@pytest.mark.parametrize("options", [{}, {"prompt_correction": True}], ids=["rule", "correction"])
@pytest.mark.parametrize("name", NAMES)
def test_a_training_step_on_clips_reaches_the_decoder(name, options):
    torch.manual_seed(0)
    model = OMGSegModel(OMGSegConfig.tiny(**options)).train()
    scenes = ProceduralScenes(SIZE, num_frames=2)
    batch = collate([scenes.sample(index) for index in range(2)], task="video_object")
    arguments = {"class_embeds": None, "size": batch["pixel_values"].shape[-2:]}
    question = next(
        question
        for seed in range(50)
        if name
        in (question := make_question(HEAD, batch["annotations"], **arguments, generator=generator(seed))).inputs[
            "query_inputs"
        ]
    )
    (layers,) = Answers(model)(batch["pixel_values"], batch["pixel_mask"], [question.inputs])
    assert layers[-1].mask_logits.shape[:3] == (2, HEAD.num_prompts, 2)
    SegmentationLoss()(layers, question.targets, is_matched=False, generator=generator())["total"].backward()
    reached = {
        part for part, value in model.named_parameters() if value.grad is not None and value.grad.abs().sum() > 0
    }
    assert any(part.startswith("query_decoder.layers.") for part in reached)
    assert any(part.startswith("query_encoders.prompt.") for part in reached)


# -- frames that nobody annotated


def sample_of(num_frames, annotated, size=SIZE):
    """An object in all annotated frames; the others are void as a whole."""
    whole = encode_mask(torch.ones(size, dtype=torch.bool))
    mask = encode_mask(block((4, 20), (8, 24)))
    known = [frame in annotated for frame in range(num_frames)]
    segment = Segment(-1, tuple(mask if flag else None for flag in known), 1)
    void = tuple(None if flag else whole for flag in known)
    return Annotation(size, (True,), (segment,), void, certain_classes=frozenset())


def test_a_frame_that_nobody_annotated_is_unknown_and_not_background():
    target = HEAD.targets(sample_of(3, {0}))
    assert target.unknown.flatten(1).all(1).tolist() == [False, True, True]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_answered_in_a_frame_that_nobody_annotated_changes_no_loss(name):
    targets = [HEAD.targets(sample_of(2, {0}))]
    _, answers = ask(targets, name)
    logits = torch.randn(1, HEAD.num_prompts, 2, SIZE[0] // 4, SIZE[1] // 4, generator=generator())
    other = logits.clone()
    other[:, :, 1] = 20 * torch.randn(other[:, :, 1].shape, generator=generator(1))
    losses = []
    for masks in (logits, other):
        output = QueryOutput(None, masks, torch.zeros(1, HEAD.num_prompts))
        settings = LossSettings(mask_loss="maps", iou_target="iou")
        losses.append(SegmentationLoss(settings)([output], answers, is_matched=False)["total"].item())
    assert losses[0] == losses[1]


@pytest.mark.parametrize(("annotated", "is_judged"), [({0, 1, 2, 3}, True), ({0, 2, 3}, True), ({0, 1}, False)])
def test_clips_with_fewer_than_three_annotated_frames_are_left_out_and_named(annotated, is_judged):
    annotation = sample_of(4, annotated)
    masks = annotation.segments[0].masks
    answer = Segments(SIZE, torch.ones(1, dtype=torch.long), torch.tensor([-1]), torch.ones(1), rles=(masks,))
    metric = HEAD.metric(num_classes=1)
    metric.update(answer, annotation, key="tennis")
    skipped = [] if is_judged else ["tennis: 2 annotated frames, of which the first and the last are not judged"]
    assert metric.skipped == skipped
    assert math.isnan(metric.compute()["j_and_f"]) is not is_judged
