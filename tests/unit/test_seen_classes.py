"""Which names were trained: a CLIP backbone helps with the others, in the pipeline, sessions and the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from omg_transformers import (
    InteractiveSession,
    OMGSegConfig,
    OMGSegImageProcessor,
    OMGSegModel,
    OMGSegPipeline,
    OMGSegProcessor,
)
from omg_transformers.cli import main
from omg_transformers.inference.requests import resolve_seen_classes
from omg_transformers.inference.video_session import VideoSession
from omg_transformers.labels import LabelSpace, Vocabulary

from .test_model import BACKBONES

TRAINED_NAMES = ["person", "sofa|couch", "grass"]
ASKED = ["couch", "unicorn", "grass", "castle"]
SEEN = (True, False, True, False)


def build(kind: str, spaces: bool = True) -> OMGSegPipeline:
    torch.manual_seed(0)
    own = {"mine": LabelSpace.from_names(TRAINED_NAMES).to_dict()} if spaces else None
    config = OMGSegConfig.tiny(default_task="semantic", logit_scale=5.0, label_spaces=own, **BACKBONES[kind])
    model = OMGSegModel(config).eval()
    names = [*ASKED, "person", "sofa"]
    vocabulary = Vocabulary.from_table(names, torch.randn(len(names), 16))
    processor = OMGSegProcessor(OMGSegImageProcessor(size={"shortest_edge": 64}), vocabulary=vocabulary)
    return OMGSegPipeline(model=model, processor=processor, device="cpu")


@pytest.fixture(scope="module")
def pipe() -> OMGSegPipeline:
    return build("open_clip")


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)


def as_numbers(segments):
    return segments.labels.tolist(), segments.scores.tolist()


def test_the_pipeline_answers_what_the_forward_call_says(pipe, picture):
    inputs = pipe.processor([picture], labels=ASKED)
    with torch.no_grad():
        outputs = pipe.model(**inputs, seen_classes=torch.tensor(SEEN))
    sizes = inputs["original_sizes"]
    (expected,) = pipe.processor.post_process(outputs, task="instance", labels=ASKED, target_sizes=sizes)
    (fused,) = pipe.segment([picture], task="instance", labels=ASKED, seen_classes=SEEN)
    (plain,) = pipe.segment([picture], task="instance", labels=ASKED)
    assert as_numbers(fused) == as_numbers(expected)
    assert as_numbers(fused) != as_numbers(plain)


@pytest.mark.parametrize(
    "given", ["trained", ["couch", "grass"], [True, False, True, False], np.array(SEEN), torch.tensor(SEEN)]
)
def test_every_form_says_the_same(pipe, given):
    space = LabelSpace.from_names(ASKED)
    assert resolve_seen_classes(pipe.model, space, given) == SEEN


def test_a_synonym_that_was_trained_makes_its_name_trained(pipe):
    space = LabelSpace.from_names(["settee|sofa", "castle|chateau"])
    assert resolve_seen_classes(pipe.model, space, "trained") == (True, False)


def test_no_name_may_have_been_trained(pipe):
    assert resolve_seen_classes(pipe.model, LabelSpace.from_names(ASKED), []) == (False,) * 4


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (["sofas"], ValueError, "no class 'sofas'"),
        ([True, False], ValueError, "2 flags: expected 4"),
        ([True, "grass", False, True], TypeError, "True or False for each name"),
        ([1, 0, 1, 0], TypeError, "True or False for each name"),
        ("seen", ValueError, "seen_classes is 'seen': expected 'trained'"),
    ],
)
def test_what_is_not_about_the_names_is_refused(pipe, picture, given, error, message):
    with pytest.raises(error, match=message):
        pipe(picture, labels=ASKED, seen_classes=given)


def test_a_backbone_without_a_clip_head_is_refused(picture):
    pipe = build("convnext")
    with pytest.raises(ValueError, match=r"seen_classes needs a backbone with a CLIP head.*leave it out"):
        pipe(picture, labels=ASKED, seen_classes="trained")
    with pytest.raises(ValueError, match="seen_classes needs a backbone with a CLIP head"):
        InteractiveSession(pipe.model, pipe.processor, labels=ASKED, seen_classes="trained")
    with pytest.raises(ValueError, match="seen_classes needs a backbone with a CLIP head"):
        VideoSession(pipe.model, pipe.processor, labels=ASKED, seen_classes="trained")


def test_a_checkpoint_that_does_not_say_what_was_trained_is_refused(picture):
    with pytest.raises(ValueError, match="label_spaces are empty"):
        build("open_clip", spaces=False)(picture, labels=ASKED, seen_classes="trained")


def test_prompts_without_names_have_nothing_to_fuse(pipe, picture):
    with pytest.raises(ValueError, match="there are none: pass labels"):
        pipe(picture, input_points=[[[10, 10]]], seen_classes="trained")


def test_names_of_prompted_masks_are_fused_as_in_the_forward_call(pipe, picture):
    session = InteractiveSession(pipe.model, pipe.processor, labels=ASKED, seen_classes="trained")
    session.set_picture(picture)
    fused = session.add_box([5, 5, 60, 45])
    session.set_labels(ASKED)
    plain = session.masks()
    inputs = pipe.processor([picture], labels=ASKED, input_boxes=[[[5, 5, 60, 45]]])
    with torch.no_grad():
        outputs = pipe.model(**inputs, seen_classes=torch.tensor(SEEN))
    probs = outputs.class_logits[0, 0, :-1].softmax(-1)
    assert fused.labels.tolist() == [int(probs.argmax())]
    torch.testing.assert_close(fused.info["label_probs"][0], probs.max())
    assert not torch.equal(fused.info["label_probs"], plain.info["label_probs"])


def test_a_session_fuses_tasks_without_prompts_as_the_pipeline_does(pipe, picture):
    session = InteractiveSession(pipe.model, pipe.processor)
    session.set_picture(picture)
    asked = {"labels": ASKED, "seen_classes": ["couch", "grass"]}
    (expected,) = pipe.segment([picture], task="instance", **asked)
    assert as_numbers(session.segment("instance", **asked)) == as_numbers(expected)


def test_videos_take_the_same_words(pipe, picture):
    words = list(pipe.follow([picture], task="video_instance", labels=ASKED, seen_classes="trained"))
    session = VideoSession(pipe.model, pipe.processor, "video_instance", ASKED, seen_classes=SEEN)
    flags = list(session.stream([picture]))
    assert as_numbers(words[0].segments) == as_numbers(flags[0].segments)
    assert session.state.settings["seen_classes"] == list(SEEN)


@pytest.mark.parametrize("words", ["trained", "couch, grass"])
def test_the_command_line_takes_names_or_the_trained_ones(pipe, picture, tmp_path, words):
    pipe.save_pretrained(tmp_path / "model")
    Image.fromarray(picture).save(tmp_path / "a.png")
    arguments = ["segment", str(tmp_path / "a.png"), "--model", str(tmp_path / "model"), "--labels", ",".join(ASKED)]
    arguments += ["--task", "instance", "--shards"]
    assert main([*arguments, "--out", str(tmp_path / "out"), "--seen-classes", words]) == 0
    assert json.loads((tmp_path / "out" / "settings.json").read_text())["seen_classes"] == list(SEEN)


def test_the_command_line_names_what_it_cannot_do(picture, tmp_path, capsys):
    Image.fromarray(picture).save(tmp_path / "a.png")
    build("convnext").save_pretrained(tmp_path / "model")
    arguments = ["segment", str(tmp_path / "a.png"), "--model", str(tmp_path / "model"), "--labels", ",".join(ASKED)]
    assert main([*arguments, "--out", str(tmp_path / "out"), "--seen-classes", "trained"]) == 1
    assert "seen_classes needs a backbone with a CLIP head" in capsys.readouterr().err
