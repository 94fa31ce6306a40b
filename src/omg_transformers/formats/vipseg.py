"""VIPSeg's results: pan_pred/VIDEO/FRAME.png with panoptic ids, and pred.json that says what each id is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from omg_transformers.formats.atomic_file import PartFile
from omg_transformers.formats.coco_panoptic import categories, id_map_of, panoptic_annotation, write_id_png

if TYPE_CHECKING:
    from pathlib import Path

    from omg_transformers.labels import LabelSpace
    from omg_transformers.structures import Segments


class VipsegResults:
    """Writes the frames of one video at once, and pred.json in `close`; ids stay the same through the video."""

    def __init__(self, folder: Path, video: str, label_space: LabelSpace) -> None:
        self._pngs = folder / "pan_pred" / video
        self._pngs.mkdir(parents=True, exist_ok=True)
        self._label_space = label_space
        self._part = PartFile(folder / "pred.json")
        self._stream = self._part.path.open("x", encoding="utf-8")
        self._stream.write(f'{{"annotations": [{{"video_id": {json.dumps(video)}, "annotations": [')
        self._separator = "\n"

    def add(self, name: str, segments: Segments) -> None:
        """Write the frame `name`. ValueError: its segments may overlap."""
        file_name = f"{name}.png"
        write_id_png(self._pngs / file_name, id_map_of(segments, 0))
        entry: dict[str, Any] = panoptic_annotation(segments, self._label_space, image_id=name, file_name=file_name)
        self._stream.write(self._separator + json.dumps(entry, ensure_ascii=False))
        self._separator = ",\n"

    def close(self) -> Path:
        """Complete pred.json with the frames that were added."""
        with self._stream as stream:
            stream.write(f'\n]}}], "categories": {json.dumps(categories(self._label_space), ensure_ascii=False)}}}')
        return self._part.finish()
