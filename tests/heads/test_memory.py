"""Post-processing of a 4K picture stays small: no queries or classes at full size, ever."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import resource, sys, torch
from torch.nn import functional as F
from omg_transformers.plugins import load_head
from omg_transformers.structures import QueryOutput

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)

def run(queries, classes, grid, size):
    random = torch.Generator().manual_seed(0)
    masks = F.interpolate(torch.randn(1, queries, 12, 20, generator=random) * 4, size=grid, mode="bilinear")[:, :, None]
    output = QueryOutput(torch.randn(1, queries, classes + 1, generator=random) * 3, masks)
    before = peak()
    head.postprocess(output, sizes=[size], is_thing=(True, False) * (classes // 2))
    return peak() - before

torch.set_num_threads(1)
head = load_head(sys.argv[1])
run(10, 4, (30, 40), (120, 160))  # what is loaded on first use is no part of it
print(run(300, 150, (200, 356), (2160, 3840)))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the peak is asked from the kernel by `resource`")
@pytest.mark.parametrize("head", ["semantic", "instance", "panoptic"])
def test_300_queries_and_150_classes_at_4k_take_less_than_300_mb(head):
    result = subprocess.run([sys.executable, "-c", CODE, head], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) < 300
