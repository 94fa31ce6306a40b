"""Data sets written in the layouts of the field, from any source of samples."""

from omg_transformers.data.writers.write import WRITERS, Written, check_target, format_written, write_source

__all__ = ["WRITERS", "Written", "check_target", "format_written", "write_source"]
