"""The video panoptic head."""

from omg_head_video_panoptic.head import VideoPanopticHead

__all__ = ["VideoPanopticHead"]
