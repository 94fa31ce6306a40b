"""The panoptic head."""

from omg_head_panoptic.head import PanopticHead

__all__ = ["PanopticHead"]
