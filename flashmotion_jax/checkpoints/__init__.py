"""Checkpoints: reading, writing and initialising models on disk."""
