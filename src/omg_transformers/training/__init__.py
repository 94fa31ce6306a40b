"""What the training recipes call: matching, losses, optimizer groups, checkpoints, logs."""
