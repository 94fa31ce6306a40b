"""Average precision of objects followed through videos, as YouTube-VIS defines it."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from pycocotools import mask as coco_mask

from omg_transformers.metrics.average_precision import AveragePrecision, named_figures, packed
from omg_transformers.metrics.coco_results import (
    DetectionScores,
    check_counts,
    check_unique,
    list_of,
    number_of,
    read_json,
    read_tables,
    results_list,
    rle_of,
)
from omg_transformers.metrics.detection_matching import (
    YOUTUBE_VIS_RULES,
    MatchTable,
    group_by_class,
)
from omg_transformers.metrics.run_lengths import areas_of

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

    from numpy.typing import NDArray

    from omg_transformers.metrics.coco_results import Source
    from omg_transformers.metrics.detection_matching import Group, Record
    from omg_transformers.structures import RLE


def track_ious(results: Sequence[Sequence[RLE | None]], truths: Sequence[Sequence[RLE | None]]) -> NDArray[np.float64]:
    """IoU (D, G) of tracks over their frames together, 0 where both are empty. RLE counts are bytes.

    As in YouTube-VIS, a track that lists fewer frames is compared on those alone.
    """
    sides = (results, truths)
    intersection, union = np.zeros((2, len(results), len(truths)))
    areas = [_areas(tracks) for tracks in sides]
    for frame in range(min(area.shape[1] for area in areas)):
        is_listed = [np.array([len(track) > frame for track in tracks], dtype=bool) for tracks in sides]
        shared = np.zeros(union.shape)
        shown = [[row for row, track in enumerate(tracks) if any(track[frame : frame + 1])] for tracks in sides]
        if all(shown):
            masks = [[tracks[row][frame] for row in rows] for tracks, rows in zip(sides, shown, strict=True)]
            ious = np.asarray(coco_mask.iou(*masks, [0] * len(shown[1])))
            if ious.min() < 0:
                raise ValueError(f"masks of frame {frame} differ in size: all of a video must be equal")
            # Back to whole pixels: of the sum a + b = i + u, an IoU of i / u leaves i.
            sums = areas[0][shown[0], frame][:, None] + areas[1][shown[1], frame][None]
            shared[np.ix_(*shown)] = np.rint(ious * sums / (1 + ious))
        intersection += shared
        seen = areas[0][:, frame, None] + areas[1][None, :, frame] - shared
        union += np.where(is_listed[0][:, None] & is_listed[1][None], seen, 0)
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)


def group_tracks(truths: Sequence[dict[str, Any]], results: Sequence[dict[str, Any]]) -> list[Group]:
    """Overlaps of one video's tracks, class by class, ready for `MatchTable.add`.

    Records hold "category_id" (index of the class), "segmentations" (one RLE or None per frame), results a "score",
    truths "iscrowd" and, if known, "id" and "areas". A crowd's overlap is the plain IoU; its area counts where shown.
    """
    return group_by_class(truths, results, _overlaps, _mean_area)


class VideoMaskAveragePrecision(AveragePrecision):
    """YouTube-VIS AP over IoU 0.5 to 0.95 of tracks.

    Sizes are means over the frames that show the object, small below 128 x 128 pixels, large above 256 x 256.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, YOUTUBE_VIS_RULES)

    def update_records(
        self, truths: Sequence[dict[str, Any]], results: Sequence[dict[str, Any]], *, key: Hashable = None
    ) -> None:
        """Count one video from plain records, see `group_tracks`."""
        self.table.add(group_tracks(truths, results), key)

    def _shape(self, rles: tuple[RLE | None, ...], size: tuple[int, int]) -> dict[str, Any]:  # noqa: ARG002
        return {"segmentations": [None if rle is None else packed(rle) for rle in rles]}


def score_youtube_vis_results(
    truth: Source, results: Source, *, progress: Callable[[Iterable[Any]], Iterable[Any]] = iter
) -> DetectionScores:
    """YouTube-VIS AP and AR of a results file; equal to YTVOSeval to 1e-9.

    truth, results: paths, or what the JSON files hold. Raises ValueError naming file and id; an empty list of results
    scores 0 where the reference stops; tracks shorter than their video are compared on their own frames and noted.
    progress: wraps the loop over the videos, e.g. `tqdm`.
    """
    files = YoutubeVisFiles(truth, results)
    table = MatchTable(len(files.categories), YOUTUBE_VIS_RULES)
    for video in progress(sorted(files.sizes)):
        table.add(group_tracks(*files.tracks_of(video)))
    precision, recall = table.accumulate()
    for note in files.notes:
        warnings.warn(note, stacklevel=2)
    return DetectionScores(
        "tracks",
        named_figures(precision, recall),
        tuple(files.categories),
        tuple(files.categories.values()),
        precision,
        recall,
        "pycocotools",
        len(files.sizes),
        sum(not found for _, found in files.by_video.values()),
        tuple(files.notes),
    )


class YoutubeVisFiles:
    """Both files, checked: tracks by video with "category_id" as index of the sorted categories."""

    def __init__(self, truth: Source, results: Source) -> None:
        self.notes: list[str] = []
        dataset, self.truth_name = read_json(truth, "truth")
        rows, self.results_name = read_json(results, "results")
        self.sizes, self.categories = read_tables(dataset, self.truth_name, "videos")
        self.labels = {number: label for label, number in enumerate(self.categories)}
        self.lengths = {video["id"]: _length(video) for video in dataset["videos"]}
        self.by_video: dict[Any, tuple[list[dict[str, Any]], list[dict[str, Any]]]]
        self.by_video = {number: ([], []) for number in self.sizes}
        self._read_truths(list_of(dataset, "annotations", self.truth_name))
        self._read_results(results_list(rows, self.results_name))

    def tracks_of(self, video: Hashable) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """True tracks and results of a video."""
        return self.by_video[video]

    def _read_truths(self, annotations: Sequence[dict[str, Any]]) -> None:
        check_unique((row.get("id") for row in annotations), self.truth_name, "annotations")
        for row in annotations:
            place = f"{self.truth_name}: annotation {row.get('id')!r}"
            if row.get("video_id") not in self.sizes:
                raise ValueError(f"{place}: there is no video {row.get('video_id')!r}")
            if row.get("category_id") not in self.labels:
                raise ValueError(f"{place}: there is no category {row.get('category_id')!r}")
            track = self._track(row, place)
            expected = self.lengths[row["video_id"]]
            if expected is not None and len(track["segmentations"]) != expected:
                raise ValueError(f"{place} has {len(track['segmentations'])} frames, its video {expected}")
            track["id"], track["iscrowd"] = row["id"], bool(row.get("iscrowd", 0))
            if row.get("areas"):
                track["areas"] = row["areas"]
            if row["id"] == 0:
                self.notes.append(f"{place}: as in the reference, finding an object with id 0 does not count")
            self.by_video[row["video_id"]][0].append(track)

    def _read_results(self, rows: Sequence[dict[str, Any]]) -> None:
        foreign: dict[Any, list[int]] = {}
        short: dict[Any, list[int]] = {}
        for index, row in enumerate(rows):
            video = row.get("video_id")
            place = f"{self.results_name}: result {index} (video {video!r}, category {row.get('category_id')!r})"
            if video not in self.sizes:
                raise ValueError(f"{place}: {self.truth_name} has no video {video!r}")
            score = number_of(row, "score", place)
            if row.get("category_id") not in self.labels:
                foreign.setdefault(row.get("category_id"), []).append(index)
                continue
            track = {**self._track(row, place), "score": score}
            length, expected = len(track["segmentations"]), self.lengths[video]
            if expected is not None and length > expected:
                raise ValueError(f"{place} has {length} frames, its video {expected}")
            if expected is not None and length < expected:
                short.setdefault(video, []).append(index)
            self.by_video[video][1].append(track)
        self._note(foreign, "of category {}, which the truth does not have, are left out")
        self._note(short, "of video {} list fewer frames than it has: as in the reference, the others are not compared")

    def _note(self, groups: dict[Any, list[int]], text: str) -> None:
        for number, indices in groups.items():
            what = text.format(repr(number))
            self.notes.append(f"{self.results_name}: {len(indices)} results {what} (result {indices[0]} first)")

    def _track(self, row: dict[str, Any], place: str) -> dict[str, Any]:
        shapes = row.get("segmentations")
        if not isinstance(shapes, list):
            raise ValueError(f"{place}: segmentations is {shapes!r}: expected a list, one RLE or null per frame")
        size = self.sizes[row["video_id"]]
        rles = [rle_of(shape, size, f"{place}, frame {frame}") if shape else None for frame, shape in enumerate(shapes)]
        shown = [(frame, rle) for frame, rle in enumerate(rles) if rle is not None]
        check_counts([rle for _, rle in shown], [f"{place}, frame {frame}" for frame, _ in shown])
        for frame, rle in shown:
            if size is not None and tuple(rle["size"]) != size:
                raise ValueError(f"{place}, frame {frame}: its mask has size {tuple(rle['size'])}, the video {size}")
        return {"category_id": self.labels[row["category_id"]], "segmentations": rles}


def _length(video: dict[str, Any]) -> int | None:
    length = video.get("length") or len(video.get("file_names", ()))
    return int(length) if length else None


def _overlaps(results: Sequence[Record], truths: Sequence[Record], _: NDArray[np.bool_]) -> NDArray[np.float64]:
    return track_ious(*([record["segmentations"] for record in records] for records in (results, truths)))


def _areas(tracks: Sequence[Sequence[RLE | None]]) -> NDArray[np.float64]:
    """Pixels per track and frame (N, T), 0 where absent."""
    areas = np.zeros((len(tracks), max((len(track) for track in tracks), default=0)))
    places = [(row, frame) for row, track in enumerate(tracks) for frame, rle in enumerate(track) if rle is not None]
    if places:
        rows, frames = zip(*places, strict=True)
        areas[rows, frames] = areas_of([tracks[row][frame] for row, frame in places])
    return areas


def _mean_area(record: Record) -> float:
    """Mean over the frames with any pixel, 0 without one."""
    areas = record.get("areas")
    if areas is None:
        areas = _areas([record["segmentations"]])[0]
    shown = [area for area in areas if area]
    return float(np.mean(shown)) if shown else 0.0
