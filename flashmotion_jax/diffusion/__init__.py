"""Diffusion: rectified flow, samplers, and losses."""
