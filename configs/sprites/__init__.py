"""The small model: its family, data and three stages."""
