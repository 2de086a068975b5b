"""Training: stages, the trainer, checkpoints and metrics."""
