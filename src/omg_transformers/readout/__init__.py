"""What heads of one kind share, for pictures and videos alike: reading results out of what the decoder predicts."""
