"""The video instance head."""

from omg_head_video_instance.head import VideoInstanceHead

__all__ = ["VideoInstanceHead"]
