"""The small model that ships with the package: its family, data and three stages."""
