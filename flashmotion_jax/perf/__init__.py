"""Measuring and planning: `flashmotion bench` and `flashmotion plan`."""
