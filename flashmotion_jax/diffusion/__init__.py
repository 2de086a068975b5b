"""Diffusion: the rectified-flow maths, the samplers, and the losses built on them."""
