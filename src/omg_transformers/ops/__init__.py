"""Pure functions on masks and tensors that every other part may use."""
