"""Transformers knows us, in whatever order things are imported, and nothing heavy is imported before it must be."""

from __future__ import annotations

import subprocess
import sys

import pytest

import omg_transformers

CHECK = """
from transformers import AutoConfig, AutoModel
from transformers.pipelines import PIPELINE_REGISTRY
assert "omg-segmentation" in PIPELINE_REGISTRY.get_supported_tasks()
assert type(AutoConfig.for_model("omg_seg")) is omg_transformers.OMGSegConfig
assert type(AutoModel.from_config(omg_transformers.OMGSegConfig.tiny())) is omg_transformers.OMGSegModel
"""
ORDERS = {
    "ours first": "import omg_transformers",
    "transformers first": "import transformers, omg_transformers",
    "auto classes first": "from transformers import AutoModel, pipeline\nimport omg_transformers",
    "the model first": "from omg_transformers.model import OMGSegModel\nimport omg_transformers",
    "the processor first": "from omg_transformers.processing import OMGSegProcessor\nimport omg_transformers",
    "the pipeline first": "from omg_transformers.inference import OMGSegPipeline\nimport omg_transformers",
}


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


# Each order starts an interpreter that loads torch: the one of the README runs always.
USUAL = ("ours first",)


@pytest.mark.parametrize(
    "order", [pytest.param(name, marks=() if name in USUAL else pytest.mark.slow) for name in ORDERS]
)
def test_registered_whatever_is_imported_first(order):
    result = run(ORDERS[order] + CHECK)
    assert result.returncode == 0, result.stderr


def test_our_import_alone_loads_neither_torch_nor_transformers():
    result = run(
        "import sys, omg_transformers\nfrom omg_transformers.plugins import available_heads\nassert available_heads()\n"
        "heavy = {'torch', 'transformers', 'timm', 'open_clip'} & set(sys.modules)\nassert not heavy, heavy"
    )
    assert result.returncode == 0, result.stderr


def test_every_public_name_exists():
    assert len(omg_transformers.__all__) > 10
    for name in omg_transformers.__all__:
        assert getattr(omg_transformers, name) is not None, name
    assert set(omg_transformers.__all__) <= set(dir(omg_transformers))
