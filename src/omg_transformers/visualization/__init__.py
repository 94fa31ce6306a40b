"""Results as a person wants to see them."""

from omg_transformers.visualization.confusion import draw_confusion
from omg_transformers.visualization.overlay import draw_overlay
from omg_transformers.visualization.shades import TrackColors, segment_colors
from omg_transformers.visualization.side_by_side import draw_side_by_side, draw_truth, shown_frames

__all__ = [
    "TrackColors",
    "draw_confusion",
    "draw_overlay",
    "draw_side_by_side",
    "draw_truth",
    "segment_colors",
    "shown_frames",
]
