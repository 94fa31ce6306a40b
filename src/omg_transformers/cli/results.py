"""What `omg-seg segment` leaves in its output folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from omg_transformers.formats import coco_results, panoptic_annotation, write_class_png, write_id_png, write_json
from omg_transformers.formats.atomic_file import write_png
from omg_transformers.formats.coco_panoptic import panoptic_content
from omg_transformers.visualization import draw_overlay

if TYPE_CHECKING:
    from omg_transformers.labels import LabelSpace
    from omg_transformers.processing.pictures import Pixels
    from omg_transformers.structures import Segments


class ResultFolder:
    """Writes overlays/NAME.png and, where segments do not overlap, panoptic/NAME.png and classes/NAME.png at once;
    panoptic.json, coco.json and labels.json in `finish`. Existing files are replaced whole.
    """

    def __init__(self, folder: Path, label_space: LabelSpace | None, *, legend: bool = False) -> None:
        self.folder, self.label_space, self.legend = folder, label_space, legend
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._results: list[dict[str, Any]] = []

    def add(self, name: str, picture: Pixels, segments: Segments) -> Path:
        """Write the files of one picture; returns its overlay."""
        image_id = int(name) if name.isdecimal() else name
        if segments.id_map is not None and self.label_space is not None:
            write_id_png(self._file("panoptic", name), segments.id_map[0].numpy())
            write_class_png(self._file("classes", name), segments, self.label_space)
            file_name = f"{name}.png"
            self._annotations.append(
                panoptic_annotation(segments, self.label_space, image_id=image_id, file_name=file_name)
            )
            self._images.append(
                {"id": image_id, "file_name": file_name, "height": segments.size[0], "width": segments.size[1]}
            )
        self._results += coco_results(segments, self.label_space, image_id=image_id, only_things=True)
        overlay = draw_overlay(picture, segments, self.label_space, legend=self.legend)
        return write_png(self._file("overlays", name), Image.fromarray(overlay))

    def finish(self) -> None:
        """Write the files that are about all pictures."""
        write_json(self.folder / "coco.json", self._results)
        if self.label_space is None:
            return
        write_json(self.folder / "labels.json", self.label_space.to_dict())
        if self._images:
            content = panoptic_content(self._images, self._annotations, self.label_space)
            write_json(self.folder / "panoptic.json", content)

    def _file(self, kind: str, name: str) -> Path:
        folder = self.folder / kind
        folder.mkdir(exist_ok=True)
        return folder / f"{name}.png"
