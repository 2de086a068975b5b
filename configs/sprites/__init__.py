"""The small model: its family, data and three stages. Nothing after its multi-step generator's first half is settled yet."""
