"""Planning: what a program takes of devices, read from its compiled text before there are any."""
