"""The dictionaries that transformers' own `post_process_*` methods return, for code written against them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from omg_transformers.structures import Segments


def segmentation_dict(segments: Segments, *, frame: int = 0) -> dict[str, Any]:
    """{"segmentation", "segments_info": [{"id", "label_id", "was_fused", "score"}]}.

    segmentation: the id at each pixel (H, W) int32, -1 = void; of segments that may overlap, masks (N, H, W) bool.
    """
    if segments.id_map is not None:
        ids = segments.id_map[frame]
        segmentation = torch.where(ids == 0, -1, ids)
    elif len(segments):
        segmentation = torch.stack([segments.mask(index)[frame] for index in range(len(segments))])
    else:
        segmentation = torch.zeros((0, *segments.size), dtype=torch.bool)
    rows = zip(segments.ids.tolist(), segments.labels.tolist(), segments.scores.tolist(), strict=True)
    infos = [{"id": key, "label_id": label, "was_fused": False, "score": score} for key, label, score in rows]
    return {"segmentation": segmentation, "segments_info": infos}
