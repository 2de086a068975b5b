"""Images and videos: reading and writing."""
