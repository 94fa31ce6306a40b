"""Programs that count COCO's AP: ours on pycocotools, and faster packages where they give the same numbers."""

from __future__ import annotations

import contextlib
import copy
import importlib
import importlib.util
import io
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

OWN_BACKEND = "pycocotools"
# Fastest first, as measured by benchmarks/metrics_average_precision.py.
FAST_BACKENDS = ("hotcoco", "faster_coco_eval")
BACKENDS = (OWN_BACKEND, *FAST_BACKENDS)


def installed_backends() -> tuple[str, ...]:
    """Backends that can be imported here; ours always."""
    return tuple(name for name in BACKENDS if name == OWN_BACKEND or importlib.util.find_spec(name) is not None)


def difference_of(backend: str, kind: str, *, has_void_id: bool, has_ignored: bool, has_results: bool) -> str | None:
    """Why a backend would not give COCOeval's numbers for such files; None: it does."""
    if backend == OWN_BACKEND:
        return None
    if not has_results:
        return "it is not compared on empty results"
    if backend == "hotcoco" and kind == "boundary":
        return "it knows no boundaries"
    if backend == "hotcoco" and has_void_id:
        return "it counts matches of the annotation with id 0, COCOeval does not"
    if kind == "boundary" and has_ignored:
        return "it does not honour `ignore`, as boundary AP's own program does"
    return None


def choose_backend(backend: str, kind: str, *, has_void_id: bool, has_ignored: bool, has_results: bool) -> str:
    """The backend to use; raises where a named one is missing or would give other numbers."""
    flags = {"has_void_id": has_void_id, "has_ignored": has_ignored, "has_results": has_results}
    installed = installed_backends()
    if backend == "auto":
        fit = [name for name in FAST_BACKENDS if name in installed and difference_of(name, kind, **flags) is None]
        return fit[0] if fit else OWN_BACKEND
    if backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}: expected auto, {', '.join(BACKENDS)}")
    if backend not in installed:
        raise ImportError(f"backend {backend!r} is not installed: `pip install {backend.replace('_', '-')}`")
    reason = difference_of(backend, kind, **flags)
    if reason is not None:
        raise ValueError(f"backend {backend!r} is refused for these files ({kind}): {reason}. Take 'pycocotools'")
    return backend


def run_backend(
    backend: str, truth: Any, results: Any, kind: str, dilation_ratio: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """precision (T, R, K, A, M) and recall (T, K, A, M) by an optional package, from paths or what the files hold."""
    package: Any = importlib.import_module(backend)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        # Copies: packages write areas, ids and other forms of the masks into what they are given.
        data = package.COCO(copy.deepcopy(truth) if isinstance(truth, dict) else str(truth))
        found = data.loadRes(copy.deepcopy(results) if isinstance(results, list) else str(results))
        if backend == "hotcoco":
            evaluation = package.COCOeval(data, found, kind)
        else:
            evaluation = package.COCOeval_faster(data, found, kind, boundary_dilation_ratio=dilation_ratio)
        evaluation.evaluate()
        evaluation.accumulate()
    return tuple(np.asarray(evaluation.eval[name], dtype=np.float64) for name in ("precision", "recall"))  # type: ignore[return-value]
