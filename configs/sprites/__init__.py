"""The small model: its family, data and three stages. Not trained to its end yet."""
