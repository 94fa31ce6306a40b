"""VIPSeg's results: pan_pred/VIDEO/FRAME.png with panoptic ids, and pred.json that says what each id is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from omg_transformers.formats.atomic_file import PartFile
from omg_transformers.formats.coco_panoptic import categories, id_map_of, panoptic_annotation, write_id_png
from omg_transformers.ops.votes import TrackVotes

if TYPE_CHECKING:
    from pathlib import Path

    from omg_transformers.labels import LabelSpace
    from omg_transformers.structures import Segments


class VipsegResults:
    """Writes the frames of one video at once, and pred.json in `close`.

    An id is one object of one class through the whole video, so its class is known at the end: see TrackVotes.
    """

    def __init__(self, folder: Path, video: str, label_space: LabelSpace) -> None:
        self._pngs = folder / "pan_pred" / video
        self._pngs.mkdir(parents=True, exist_ok=True)
        self._video, self._label_space = video, label_space
        self._part = PartFile(folder / "pred.json")
        # Frames as they come, one JSON object per line: memory does not grow with the video.
        self._lines = PartFile(folder / "pred.jsonl").path
        self._stream = self._lines.open("x", encoding="utf-8")
        self._votes: dict[int, TrackVotes] = {}

    def add(self, name: str, segments: Segments) -> None:
        """Write the frame `name`. ValueError: its segments may overlap."""
        file_name = f"{name}.png"
        write_id_png(self._pngs / file_name, id_map_of(segments, 0))
        entry: dict[str, Any] = panoptic_annotation(segments, self._label_space, image_id=name, file_name=file_name)
        for info in entry["segments_info"]:
            self._votes.setdefault(info["id"], TrackVotes()).add(info["category_id"], info["score"])
        self._stream.write(json.dumps(entry, ensure_ascii=False) + "\n")

    def close(self) -> Path:
        """Write pred.json with the frames that were added."""
        self._stream.close()
        try:
            with self._part.path.open("x", encoding="utf-8") as target, self._lines.open(encoding="utf-8") as lines:
                target.write(f'{{"annotations": [{{"video_id": {json.dumps(self._video)}, "annotations": [')
                for number, line in enumerate(lines):
                    entry = json.loads(line)
                    for info in entry["segments_info"]:
                        info["category_id"] = self._votes[info["id"]].label
                    target.write((",\n" if number else "\n") + json.dumps(entry, ensure_ascii=False))
                names = json.dumps(categories(self._label_space), ensure_ascii=False)
                target.write(f'\n]}}], "categories": {names}}}')
            return self._part.finish()
        except BaseException:
            self._part.discard()
            raise
        finally:
            self._lines.unlink(missing_ok=True)
