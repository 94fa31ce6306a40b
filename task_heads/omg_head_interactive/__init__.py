"""The interactive head."""

from omg_head_interactive.head import InteractiveHead

__all__ = ["InteractiveHead"]
