"""The video object head."""

from omg_head_video_object.head import VideoObjectHead

__all__ = ["VideoObjectHead"]
