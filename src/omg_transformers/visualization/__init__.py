"""Results as a person wants to see them."""

from omg_transformers.visualization.overlay import draw_overlay
from omg_transformers.visualization.shades import segment_colors

__all__ = ["draw_overlay", "segment_colors"]
