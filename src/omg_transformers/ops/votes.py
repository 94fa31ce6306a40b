"""One label and one score for an object that many frames show."""

from __future__ import annotations

from collections import Counter


class TrackVotes:
    """The label that most frames give, of equals the earliest, and the mean score over the frames that show the object.

    That is how whole tracks are ranked in YouTube-VIS (MaskTrack R-CNN, Yang et al. 2019).
    """

    def __init__(self) -> None:
        self._labels: Counter[int] = Counter()
        self._score_sum = 0.0

    def add(self, label: int, score: float) -> None:
        """What one frame says."""
        self._labels[label] += 1
        self._score_sum += score

    @property
    def label(self) -> int:
        """The winner so far."""
        return self._labels.most_common(1)[0][0]

    @property
    def score(self) -> float:
        """The mean so far."""
        return self._score_sum / self._labels.total()
