"""recipes/average_weights.py: the mean of several models."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from omg_transformers.model import OMGSegConfig, OMGSegModel

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "average_weights.py"


@pytest.fixture(scope="module")
def average():
    spec = importlib.util.spec_from_file_location("average_weights", RECIPE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.average


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    for name, settings in (("first", {}), ("second", {}), ("other", {"num_queries": 5})):
        OMGSegModel(OMGSegConfig.tiny(**settings)).save_pretrained(root / name)
    return root


def test_the_mean_loads_as_a_model(average, folders, tmp_path):
    average([folders / "first", folders / "second"], tmp_path / "mean")
    first, second = (load_file(folders / name / "model.safetensors") for name in ("first", "second"))
    mean = OMGSegModel.from_pretrained(tmp_path / "mean").state_dict()
    name = "query_encoders.learned.content.weight"
    torch.testing.assert_close(mean[name], (first[name] + second[name]) / 2)


def test_the_mean_is_for_whoever_may_read_its_configuration(average, folders, tmp_path):
    average([folders / "first", folders / "second"], tmp_path / "mean")
    modes = [(tmp_path / "mean" / name).stat().st_mode for name in ("config.json", "model.safetensors")]
    assert modes[0] == modes[1]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["first"], "two or more"),
        (["first", "missing"], r"missing has no model\.safetensors"),
        (["first", "other"], "other is another model.*query_encoders.learned"),
    ],
)
def test_what_cannot_be_averaged_is_refused(average, folders, tmp_path, names, message):
    with pytest.raises(ValueError, match=message):
        average([folders / name for name in names], tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


def test_an_existing_folder_is_not_written_over(average, folders, tmp_path):
    with pytest.raises(ValueError, match="exists: give a new folder"):
        average([folders / "first", folders / "second"], tmp_path)
