"""The video semantic head."""

from omg_head_video_semantic.head import VideoSemanticHead

__all__ = ["VideoSemanticHead"]
