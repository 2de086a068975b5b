"""Runs of the small model: its sizes, its data and its stages."""
