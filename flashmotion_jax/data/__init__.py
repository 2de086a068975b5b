"""Data: images and videos in files, and the sets the training stages read."""
