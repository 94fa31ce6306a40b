"""Public conformance kit: every task head, ours and a stranger's, runs the same checks."""

from omg_transformers.testing.conformance import check_task_head, head_checks, parametrize_with_head_checks
from omg_transformers.testing.models import tiny_model
from omg_transformers.testing.scenes import perfect_output

__all__ = ["check_task_head", "head_checks", "parametrize_with_head_checks", "perfect_output", "tiny_model"]
