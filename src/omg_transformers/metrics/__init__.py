"""Metrics: numpy at the core, small states that merge over processes."""
