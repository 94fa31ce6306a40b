"""What heads of one kind share, for pictures and videos alike: asking, and reading results out of what the
decoder predicts."""
