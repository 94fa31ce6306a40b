"""Our metrics for those who collect figures with Hugging Face's `evaluate`.

The files beside this one are scripts that `evaluate` copies elsewhere and runs: they import absolutely, one module per
line, and hold nothing but the adapter.
"""

from __future__ import annotations

import difflib
from pathlib import Path

EVALUATE_MODULES = ("mask_average_precision", "mean_iou", "panoptic_quality", "video_object_quality")


def evaluate_module(name: str) -> str:
    """Path for `evaluate.load(...)`: "mask_average_precision", "mean_iou", "panoptic_quality", "video_object_quality".

    Needs no network. LookupError naming the nearest for another name. The package `evaluate` is the extra `evaluate`.
    """
    if name not in EVALUATE_MODULES:
        nearest = difflib.get_close_matches(str(name), EVALUATE_MODULES, n=1, cutoff=0.3)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise LookupError(f"unknown evaluate module {name!r}: there are {', '.join(EVALUATE_MODULES)}.{hint}")
    return str(Path(__file__).with_name(f"{name}.py"))
