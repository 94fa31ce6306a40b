"""Segmentation by scribbles: draw a line over an object, get its mask."""

from omg_head_scribble.encoder import ScribbleEncoder
from omg_head_scribble.head import ScribbleHead

__all__ = ["ScribbleEncoder", "ScribbleHead"]
