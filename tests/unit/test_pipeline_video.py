"""The pipeline on videos: one list per frame, lazily, from any form of a video."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from omg_transformers import OMGSegPipeline
from omg_transformers.inference.video_session import VideoSession

from .test_pipeline import build


@pytest.fixture(scope="module")
def pipe() -> OMGSegPipeline:
    return build()


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    """A texture that moves to the right."""
    scene = np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)
    return [scene[:, 3 * index : 3 * index + 64] for index in range(4)]


def ids(answers) -> list[list[tuple[int, str]]]:
    return [[(found["id"], found["label"]) for found in answer] for answer in answers]


def test_a_video_gives_one_list_per_frame_as_the_session_does(pipe, frames):
    answers = list(pipe(frames, task="video_panoptic"))
    session = VideoSession(pipe.model, pipe.processor, "video_panoptic")
    expected = list(session.stream(frames))
    assert len(answers) == 4
    assert any(answers)
    for answer, result in zip(answers, expected, strict=True):
        assert [found["id"] for found in answer] == result.segments.ids.tolist()
        for index, found in enumerate(answer):
            np.testing.assert_array_equal(np.asarray(found["mask"]) > 0, result.segments.mask(index)[0].numpy())


def test_answers_come_while_the_video_is_read(pipe, frames):
    read = []

    def stream():
        for index, frame in enumerate(frames):
            read.append(index)
            yield frame

    answers = pipe(stream(), task="video_panoptic")
    assert isinstance(answers, Iterator)
    assert not read
    next(answers)
    assert read == [0]


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_every_form_of_a_video_is_taken(pipe, frames, tmp_path, mode):
    expected = ids(pipe(frames, task="video_panoptic", mode=mode))
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"{index}.png")
    assert ids(pipe(str(tmp_path), task="video_panoptic", mode=mode)) == expected
    assert ids(pipe(iter(frames), task="video_panoptic", mode=mode)) == expected


def test_names_and_options_are_chosen_per_call(pipe, frames):
    labels = ["sky", "dog"]
    found = {label for answer in ids(pipe(frames, task="video_panoptic", labels=labels)) for _, label in answer}
    assert found
    assert found <= set(labels)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"window": 0}, ValueError, "window is 0"),
        ({"windw": 2}, TypeError, "windw"),
        ({"input_points": [[[1, 2]]]}, ValueError, "takes no input_points"),
        ({"labels": ["unicorn"]}, ValueError, "unicorn"),
    ],
)
def test_a_wrong_call_is_refused_before_the_first_answer(pipe, frames, arguments, error, message):
    with pytest.raises(error, match=message):
        pipe(frames, task="video_panoptic", **arguments)


def test_a_video_task_on_pictures_says_where_to_go(pipe, frames):
    with pytest.raises(ValueError, match="is for videos"):
        pipe.segment(frames, task="video_panoptic")


def test_objects_that_are_shown_in_the_first_frame_are_followed(pipe, frames):
    answers = list(pipe(frames, task="video_object", input_boxes=[[4, 4, 30, 30], [30, 10, 60, 40]]))
    assert [[found["id"] for found in answer] for answer in answers] == [[1, 2]] * 4
    assert answers[0][0]["label"] is None
    mask = np.zeros((48, 64), bool)
    mask[5:30, 5:30] = True
    first = next(pipe(iter(frames), task="video_object", input_masks=[mask]))
    assert ((np.asarray(first[0]["mask"]) > 0) == mask).mean() > 0.9
    points = next(pipe(frames, task="video_object", input_points=[[[10, 10], [60, 40]]], input_labels=[[1, 0]]))
    assert len(points) == 1


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({}, "the prompts are for no objects"),
        ({"input_points": [[[1, 2]]], "input_labels": [[1], [1]]}, "'input_labels': 2"),
        ({"input_points": [[[1, 2]]], "input_boxes": [[0, 0, 5, 5]]}, "box and points"),
    ],
)
def test_prompts_that_do_not_show_objects_are_refused_at_once(pipe, frames, prompts, message):
    with pytest.raises(ValueError, match=message):
        pipe(frames, task="video_object", **prompts)
