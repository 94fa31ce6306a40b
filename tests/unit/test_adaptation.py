"""Before fine-tuning: what a data set can teach, and which of its names a model knows."""

from __future__ import annotations

import pytest
import torch

from omg_transformers.data import ProceduralScenes
from omg_transformers.labels import LabelSpace, Vocabulary
from omg_transformers.training.adaptation import Plan, describe_names, named_split, picture_settings, plan_tasks

SCENES = ProceduralScenes((32, 32))


class Served:
    """A source that serves these tasks."""

    num_samples, label_space = 1, SCENES.label_space

    def __init__(self, *tasks):
        self.tasks = tasks

    def sample(self, index):
        return SCENES.sample(index)


def test_the_models_own_task_is_taught_with_prompts_alongside():
    assert plan_tasks(SCENES, "semantic") == Plan({"semantic": 1.0}, {"interactive": 0.5})


def test_what_the_data_lacks_for_the_models_task_decides_for_another():
    assert plan_tasks(Served("instance", "interactive"), "panoptic") == Plan({"instance": 1.0}, {"interactive": 0.5})
    assert plan_tasks(Served("interactive"), "panoptic") == Plan({"interactive": 1.0}, {})


def test_tasks_that_the_data_does_not_serve_are_refused():
    assert plan_tasks(SCENES, None, ["instance"]) == Plan({"instance": 1.0}, {})
    with pytest.raises(ValueError, match="tasks names video_panoptic"):
        plan_tasks(SCENES, None, ["video_panoptic"])
    with pytest.raises(ValueError, match="no installed head"):
        plan_tasks(Served(), None)


def test_unknown_names_are_listed_with_names_alike():
    table = Vocabulary.from_table(["monitor", "cat"], torch.eye(2))
    assert describe_names(table, LabelSpace.from_names(["cat"]), "error") == [
        "the vocabulary knows all names of the 1 classes"
    ]
    lines = describe_names(table, LabelSpace.from_names(["cat", "tv monitor"]), "new")
    assert "1 names, so each gets a new direction" in lines[0]
    assert lines[1] == "  tv monitor (it knows monitor)"


def test_the_split_to_train_on_is_found_or_asked_for():
    assert named_split(("val2017", "train2017"), None, ("train",), is_needed=True) == "train2017"
    assert named_split(("all",), None, ("train",), is_needed=True) == "all"
    assert named_split(("all",), None, ("val",), is_needed=False) is None
    assert named_split(("a", "b"), "b", ("train",), is_needed=True) == "b"
    with pytest.raises(ValueError, match="name one of a, b by --split"):
        named_split(("a", "b"), None, ("train",), is_needed=True)
    with pytest.raises(ValueError, match="no split 'c'"):
        named_split(("a", "b"), "c", ("train",), is_needed=True)


def test_pictures_come_as_the_model_knows_them():
    found = picture_settings({"image_processor": {"size": {"shortest_edge": 64}, "image_mean": [0.1, 0.2, 0.3]}})
    assert found["transform"]["size"] == [64, 64]
    assert (found["mean"], found["std"]) == ([0.1, 0.2, 0.3], [0.5, 0.5, 0.5])
