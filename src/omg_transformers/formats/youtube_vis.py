"""YouTube-VIS's results: one entry per object with its mask in every frame of the video."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from omg_transformers.formats.atomic_file import PartFile
from omg_transformers.formats.coco_instances import coco_results
from omg_transformers.ops.votes import TrackVotes

if TYPE_CHECKING:
    from omg_transformers.labels import LabelSpace
    from omg_transformers.structures import Segments


class YoutubeVisResults:
    """Keeps the masks of each object in a file of its own while the video runs, since the format wants them object by
    object: memory does not grow with the video.

    Whole tracks are ranked: for the class and the score of an object see TrackVotes.
    """

    def __init__(self, path: str | Path, video_id: int | str, label_space: LabelSpace | None) -> None:
        self._part = PartFile(path)
        self._masks = PartFile(Path(path).with_suffix(".masks")).path
        self._masks.mkdir()
        self._video_id, self._label_space = video_id, label_space
        self._tracks: dict[int, TrackVotes] = {}
        self._num_frames = 0

    def add(self, position: int, segments: Segments) -> None:
        """The things of frame `position`, counted from 0; frames between that were not given show nothing."""
        if position < self._num_frames:
            raise ValueError(f"frame {position} comes after frame {self._num_frames - 1}: give frames in their order")
        self._num_frames = position + 1
        for entry in coco_results(segments, self._label_space, image_id=position, only_things=True):
            track = self._tracks.setdefault(entry["id"], TrackVotes())
            track.add(entry["category_id"], entry["score"])
            with self._file(entry["id"]).open("a", encoding="ascii") as stream:
                stream.write(f"{position}\t{json.dumps(entry['segmentation'])}\n")

    def close(self, num_frames: int | None = None) -> Path:
        """Write the list of objects. num_frames: of the whole video, when its last frames were not given."""
        self._num_frames = max(self._num_frames, num_frames or 0)
        try:
            with self._part.path.open("x", encoding="utf-8") as stream:
                stream.write("[")
                for number, (identity, track) in enumerate(sorted(self._tracks.items())):
                    stream.write(",\n" if number else "\n")
                    self._write_track(stream, identity, track)
                stream.write("\n]\n")
            return self._part.finish()
        except BaseException:
            self._part.discard()
            raise
        finally:
            shutil.rmtree(self._masks, ignore_errors=True)

    def _write_track(self, stream: TextIO, identity: int, track: TrackVotes) -> None:
        head = {
            "video_id": self._video_id,
            "category_id": track.label,
            "score": round(track.score, 6),
            "id": identity,
        }
        stream.write(json.dumps(head)[:-1] + ', "segmentations": [')
        written = 0
        with self._file(identity).open(encoding="ascii") as masks:
            for line in masks:
                position, _, mask = line.rstrip("\n").partition("\t")
                stream.write("null, " * (int(position) - written) + mask)
                written = int(position) + 1
                stream.write(", " if written < self._num_frames else "")
        stream.write(", ".join(["null"] * (self._num_frames - written)) + "]}")

    def _file(self, identity: int) -> Path:
        return self._masks / f"{identity}.tsv"
