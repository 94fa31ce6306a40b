"""Thresholds by name: `threshold={"person": 0.6}`."""

from __future__ import annotations

import pytest
import torch

from omg_transformers.inference.requests import Request, make_request
from omg_transformers.inference.results import above_thresholds
from omg_transformers.inference.video_session import VideoSession
from omg_transformers.labels import LabelSpace, Vocabulary
from omg_transformers.model import OMGSegConfig, OMGSegModel
from omg_transformers.plugins import load_head
from omg_transformers.processing import OMGSegImageProcessor, OMGSegProcessor
from omg_transformers.structures import Segments

NAMES = ("cat", "dog|puppy", "grass")


@pytest.fixture(scope="module")
def parts():
    torch.manual_seed(0)
    model = OMGSegModel(OMGSegConfig.tiny(head_options={"instance": {"threshold": 0.3}})).eval()
    vocabulary = Vocabulary.from_table(["cat", "dog", "puppy", "grass"], torch.eye(16)[:4])
    return model, OMGSegProcessor(OMGSegImageProcessor(), LabelSpace.from_names(NAMES), vocabulary)


def segments(**settings):
    values = {"ids": torch.tensor([4, 5, 6]), "labels": torch.tensor([0, 1, -1]), "scores": torch.tensor([0.4] * 3)}
    return Segments((1, 3), **values, **settings)


def test_each_label_has_its_own_least_score():
    kept = above_thresholds(segments(rles=((None,),) * 3, info={"queries": torch.arange(3)}), [0.5, 0.3])
    assert kept.ids.tolist() == [5, 6]
    assert kept.info["queries"].tolist() == [1, 2]
    assert len(kept.rles) == 2


def test_in_a_map_what_is_left_out_is_void():
    kept = above_thresholds(segments(id_map=torch.tensor([[[4, 5, 6]]], dtype=torch.int32)), [0.5, 0.3])
    assert kept.id_map.tolist() == [[[0, 5, 6]]]


def test_names_left_out_keep_the_usual_threshold(parts):
    request = make_request(*parts, load_head("instance"), options={"threshold": {"puppy": 0.6}})
    assert request.thresholds == (0.3, 0.6, 0.3)
    assert request.options["threshold"] == 0.3
    request = make_request(*parts, load_head("panoptic"), options={"threshold": {"cat": 0.1, "dog": 0.2, "grass": 0.9}})
    assert request.thresholds == (0.1, 0.2, 0.9)
    assert request.options["threshold"] == 0.1


def test_one_threshold_for_all_stays_with_the_head(parts):
    request = make_request(*parts, load_head("instance"), options={"threshold": 0.7})
    assert isinstance(request, Request)
    assert request.thresholds is None
    assert request.options["threshold"] == 0.7


def test_wrong_names_scores_and_tasks_are_named(parts):
    with pytest.raises(ValueError, match=r"no class .cow."):
        make_request(*parts, load_head("instance"), options={"threshold": {"cow": 0.5}})
    with pytest.raises(ValueError, match=r"threshold\['cat'\] is 7: expected a score from 0 to 1"):
        make_request(*parts, load_head("instance"), options={"threshold": {"cat": 7}})
    with pytest.raises(TypeError, match="task 'interactive' takes none"):
        make_request(*parts, load_head("interactive"), labels=list(NAMES), options={"threshold": {"cat": 0.5}})
    with pytest.raises(ValueError, match="no labels are asked for"):
        make_request(*parts, load_head("interactive"), options={"threshold": {"cat": 0.5}})


def test_videos_keep_to_the_thresholds_of_their_names(parts):
    frames = list(torch.randint(0, 256, (2, 40, 56, 3), generator=torch.Generator().manual_seed(1)).byte().numpy())

    def labels_with(threshold):
        session = VideoSession(*parts, task="video_instance", threshold=threshold)
        return {label for result in session.stream(frames) for label in result.segments.labels.tolist()}

    found = labels_with(0.0)
    assert len(found) > 1
    banned = NAMES[min(found)].split("|")[0]
    assert labels_with({name.split("|")[0]: float(name.startswith(banned)) for name in NAMES}) == found - {min(found)}
