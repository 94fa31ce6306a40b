"""The instance head."""

from omg_head_instance.head import InstanceHead

__all__ = ["InstanceHead"]
