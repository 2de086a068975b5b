"""Checkpoints: reading, writing and initializing models on disk."""
