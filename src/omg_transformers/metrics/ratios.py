"""Ratios and means that are NaN where there is nothing to divide by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def ratios(parts: NDArray[np.number], wholes: NDArray[np.number]) -> NDArray[np.float64]:
    """parts / wholes, element by element; NaN where the whole is 0."""
    return np.divide(parts, wholes, out=np.full(len(parts), np.nan), where=wholes > 0)


def mean_of_known(values: NDArray[np.float64]) -> float:
    """The mean of what is not NaN, NaN without any."""
    return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")
