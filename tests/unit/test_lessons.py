"""A step: the same losses however its samples are split, and NaN that names its sample."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState

from omg_transformers.data import MixedStream, MixPart, ProceduralScenes, TrainTransform, collate
from omg_transformers.model import OMGSegConfig, OMGSegModel
from omg_transformers.plugins import load_head
from omg_transformers.training.journal import sum_losses
from omg_transformers.training.lessons import Teacher
from omg_transformers.training.loss import LossSettings, SegmentationLoss
from omg_transformers.training.normalisers import Normalisers
from omg_transformers.training.pretrained import random_vocabulary
from omg_transformers.training.questions import Answers

PICTURES = ProceduralScenes((32, 32), num_objects=(1, 3))
CLIPS = ProceduralScenes((32, 32), num_objects=(1, 3), num_frames=2)
PROMPTED = {"interactive": PICTURES, "video_object": CLIPS}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    options = {"mask_refinement": True, "prompt_correction": True, "logit_scale": 10.0}
    return OMGSegModel(OMGSegConfig.tiny(**options)).eval()


@pytest.fixture
def accelerator():
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()
    yield Accelerator(cpu=True)
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


def make_teacher(accelerator, model, task, loss=None, **options):
    settings = loss or LossSettings(mask_loss="maps", iou_target="iou")
    vocabulary = random_vocabulary([PICTURES.label_space], model.config.text_dim)
    return Teacher(
        accelerator,
        Answers(model),
        SegmentationLoss(settings),
        vocabulary,
        {task: load_head(task)},
        {"part": (task,)},
        **options,
    )


class PartlyCertain(ProceduralScenes):
    """Of three pictures the first is exhaustive, in the second some classes are certain, in the third none."""

    def sample(self, index):
        sample = super().sample(index)
        certain = (None, frozenset({0, 1}), frozenset())[index % 3]
        return replace(sample, annotation=replace(sample.annotation, certain_classes=certain))


def batches_of(task, accumulate, source=None):
    source = source or PROMPTED.get(task, PICTURES)
    part = MixPart(task, source, 1.0, TrainTransform((32, 32)), "part")
    stream = MixedStream([part], batch_size=4 // accumulate, collate=collate, accumulate=accumulate)
    return [stream.batch(position) for position in range(accumulate)]


def losses_of(teacher, task, accumulate, source=None):
    lessons = teacher.prepare(batches_of(task, accumulate, source), step=3)
    with torch.no_grad():
        return sum_losses([teacher.losses(lesson) for lesson in lessons])


@pytest.mark.parametrize(
    ("task", "options", "loss"),
    [
        ("panoptic", {}, LossSettings(num_points=64)),
        ("interactive", {"correction_share": 1.0, "with_classes": True}, None),
        ("video_object", {}, None),
    ],
)
def test_a_step_in_parts_has_the_losses_of_the_whole(accelerator, model, task, options, loss):
    teacher = make_teacher(accelerator, model, task, loss, **options)
    whole, parts = losses_of(teacher, task, 1), losses_of(teacher, task, 4)
    assert parts == {name: pytest.approx(value, rel=1e-5, abs=1e-6) for name, value in whole.items()}


def test_a_step_in_parts_has_the_losses_of_the_whole_where_not_all_classes_are_certain(accelerator, model):
    teacher = make_teacher(accelerator, model, "panoptic")
    source = PartlyCertain((32, 32), num_objects=(1, 3))
    whole, parts = losses_of(teacher, "panoptic", 1, source), losses_of(teacher, "panoptic", 4, source)
    assert parts == {name: pytest.approx(value, rel=1e-5, abs=1e-6) for name, value in whole.items()}
    exhaustive = losses_of(teacher, "panoptic", 1)
    assert whole["panoptic/loss_class"] < exhaustive["panoptic/loss_class"]
    assert whole["panoptic/loss_mask"] == exhaustive["panoptic/loss_mask"]


def test_the_same_step_asks_the_same_again_and_another_does_not(accelerator, model):
    teacher = make_teacher(accelerator, model, "interactive")
    (batch,) = batches_of("interactive", 1)
    seen = []
    for seeds in (batch["seeds"], batch["seeds"], [seed + 1 for seed in batch["seeds"]]):
        (lesson,) = teacher.prepare([{**batch, "seeds": seeds}], step=0)
        asked = [question.inputs["query_inputs"] for question in lesson.questions["interactive"]]
        seen.append(torch.cat([value.float().flatten() for inputs in asked for value in inputs.values()]))
    assert torch.equal(seen[0], seen[1])
    assert seen[0].shape != seen[2].shape or not torch.equal(seen[0], seen[2])


def test_clips_that_are_asked_alike_share_a_question(accelerator, model):
    teacher = make_teacher(accelerator, model, "video_object")
    (lesson,) = teacher.prepare(batches_of("video_object", 1), step=3)
    questions = lesson.questions["video_object"]
    assert len(questions) > 1
    assert sorted(clip for question in questions for clip in question.clips) == [0, 1, 2, 3]
    kinds = [tuple(question.inputs["query_inputs"]) for question in questions]
    assert len(set(kinds)) == len(kinds)


def test_a_sample_with_numbers_that_are_not_finite_is_named(accelerator, model):
    teacher = make_teacher(accelerator, model, "panoptic")
    (batch,) = batches_of("panoptic", 1)
    batch["pixel_values"][2] = torch.nan
    (lesson,) = teacher.prepare([batch], step=0)
    losses = teacher.losses(lesson)
    assert lesson.suspects == [batch["sample_ids"][2]]
    assert bool(losses["loss"].isnan())
    losses["loss"].backward()  # other processes learn of it by the gradient


def test_a_process_gets_its_share_of_the_divisors():
    shared = Normalisers.shared(torch.tensor([0.0, 6.0, 8.0]), LossSettings())
    assert (shared.masks.item(), shared.classes.item(), shared.quality.item()) == (1.0, 6.0, 8.0)
