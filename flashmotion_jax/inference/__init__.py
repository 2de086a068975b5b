"""Inference: from an image, a prompt and a trajectory to a video."""
