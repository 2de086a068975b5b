"""The `flashmotion` command line."""
