"""A session: one picture encoded once, prompts that come and go."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from omg_transformers.inference import OMGSegPipeline
from omg_transformers.inference.interactive import InteractiveSession
from omg_transformers.labels import LabelSpace, Vocabulary
from omg_transformers.model import OMGSegConfig, OMGSegModel
from omg_transformers.processing import OMGSegImageProcessor, OMGSegProcessor

NAMES = ("cat", "dog", "grass")
SIZE = (50, 80)


@pytest.fixture(scope="module")
def parts():
    torch.manual_seed(0)
    model = OMGSegModel(OMGSegConfig.tiny(mask_refinement=True, prompt_correction=True)).eval()
    table = torch.nn.functional.normalize(torch.randn(len(NAMES), 16), dim=-1)
    vocabulary = Vocabulary.from_table(NAMES, table)
    pictures = OMGSegImageProcessor(size={"shortest_edge": 64})
    return model, OMGSegProcessor(pictures, LabelSpace.from_names(NAMES), vocabulary)


@pytest.fixture
def picture():
    pixels = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def session(parts, picture):
    session = InteractiveSession(*parts)
    session.set_picture(picture)
    return session


def masks_of(segments):
    return torch.stack([segments.mask(index) for index in range(len(segments))])


def test_the_picture_is_encoded_once(parts, picture, monkeypatch):
    model, processor = parts
    calls = []
    encode = model.get_image_features
    monkeypatch.setattr(model, "get_image_features", lambda *values: calls.append(1) or encode(*values))
    session = InteractiveSession(model, processor)
    session.set_picture(picture)
    session.add_points([[10, 20]])
    session.add_box([5, 5, 40, 30], object_id=2)
    session.masks()
    assert len(calls) == 1


def test_prompts_add_up_and_answers_are_those_of_one_call(parts, session, picture):
    session.add_points([[10, 20], [30, 20]], [1, 0])
    session.add_box([5, 5, 40, 30], object_id=7)
    found = session.add_points([[20, 10]], object_id=7)
    model, processor = parts
    pipe = OMGSegPipeline(model=model, processor=processor, device="cpu")
    (expected,) = pipe.segment(
        [picture],
        input_points=[[[10, 20], [30, 20]], [[20, 10]]],
        input_labels=[[1, 0], [1]],
        input_boxes=[[-10] * 4, [5, 5, 40, 30]],
    )
    assert found.ids.tolist() == [1, 7]
    assert torch.equal(masks_of(found), masks_of(expected))
    torch.testing.assert_close(found.scores, expected.scores)


def test_undo_takes_the_last_word_back(session):
    first = session.add_points([[10, 20]])
    session.add_mask(np.ones(SIZE, bool), object_id=3)
    assert session.object_ids == (1, 3)
    again = session.undo()
    assert session.object_ids == (1,)
    assert torch.equal(masks_of(first), masks_of(again))
    assert len(session.undo()) == 0
    with pytest.raises(ValueError, match="nothing to undo"):
        session.undo()


def test_reset_keeps_the_picture_and_a_new_picture_forgets_the_prompts(session, picture):
    session.add_points([[10, 20]])
    session.reset()
    assert len(session.masks()) == 0
    session.add_points([[10, 20]])
    session.set_picture(picture.resize((40, 40)))
    assert session.object_ids == ()
    assert session.masks().size == (40, 40)


def test_a_later_box_or_mask_replaces_the_earlier_one(session):
    session.add_box([5, 5, 40, 30])
    twice = session.add_box([20, 10, 70, 45])
    session.reset()
    assert torch.equal(masks_of(twice), masks_of(session.add_box([20, 10, 70, 45])))


def test_an_object_can_be_removed(session):
    session.add_points([[10, 20]])
    session.add_points([[30, 20]], object_id=2)
    assert session.remove(1).ids.tolist() == [2]
    with pytest.raises(ValueError, match="object_id is 1: known are 2"):
        session.remove(1)


def test_what_is_refused_is_not_remembered(session):
    for add, message in (
        (lambda: session.add_box([40, 5, 20, 30]), "x2 > x1"),
        (lambda: session.add_points([[81, 20]]), "outside the picture"),
        (lambda: session.add_points([[10, 20]], [3]), "input_labels holds 3"),
        (lambda: session.add_points([[10, 20]], [1, 0]), "2 values for 1 points"),
        (lambda: session.add_points([]), "0 points"),
        (lambda: session.add_points([[10, 20]], [0]), "no point inside"),
        (lambda: session.add_mask(np.ones((3, 3), bool)), "the picture is 50 high and 80 wide"),
        (lambda: session.add_points([[10, 20]], object_id=0), "object_id is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            add()
        assert session.object_ids == ()


def test_without_a_picture_it_says_what_to_do(parts):
    with pytest.raises(ValueError, match="set_picture"):
        InteractiveSession(*parts).add_points([[1, 2]])


def test_names_come_and_go_without_the_picture(parts, session):
    assert session.add_points([[10, 20]]).labels.tolist() == [-1]
    session.set_labels(["dog", "grass"])
    named = session.masks()
    assert named.labels.tolist() in ([0], [1])
    assert 0.5 <= float(named.info["label_probs"][0]) <= 1
    name = ("dog", "grass")[int(named.labels[0])]
    other = ("grass", "dog")[int(named.labels[0])]
    assert len(session.masks(only=[name])) == 1
    assert len(session.masks(only=[other])) == 0
    with pytest.raises(ValueError, match=r"no class .cow."):
        session.masks(only=["cow"])
    session.set_labels(None)
    with pytest.raises(ValueError, match="only= needs names"):
        session.masks(only=["dog"])


def test_several_masks_per_object_say_whose_they_are(session):
    session.add_points([[10, 20]])
    session.add_points([[30, 20]], object_id=5)
    several = session.masks(multimask_output=True)
    assert several.info["prompts"].tolist() == [1, 1, 1, 5, 5, 5]
    assert several.ids.tolist() == [1, 2, 3, 4, 5, 6]
    single = session.masks()
    assert torch.equal(several.mask(3), single.mask(1))


def test_everything_is_best_first_and_never_twice(session):
    found = session.everything(points_per_side=6, min_quality=0.0, max_iou=0.5)
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
    masks = masks_of(found).flatten(1).float()
    overlaps = masks @ masks.T
    unions = masks.sum(1)[:, None] + masks.sum(1)[None] - overlaps
    ious = overlaps / unions.clamp(min=1)
    # Judged on the coarser grid of logits: a little more is possible at the picture's size.
    assert (ious - torch.eye(len(ious))).max() < 0.65
    assert len(session.everything(points_per_side=6, min_quality=1.0)) == 0
    with pytest.raises(ValueError, match="points_per_side is 0"):
        session.everything(points_per_side=0)


def test_tasks_without_prompts_use_the_same_features(session):
    found = session.segment("semantic", labels=["cat", "grass"])
    assert set(found.labels.tolist()) <= {0, 1}
    with pytest.raises(ValueError, match="not asked of a whole picture"):
        session.segment("interactive")
