"""From image, prompt and trajectory to a video."""
