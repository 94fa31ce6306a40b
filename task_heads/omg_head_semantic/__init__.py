"""The semantic head."""

from omg_head_semantic.head import SemanticHead

__all__ = ["SemanticHead"]
