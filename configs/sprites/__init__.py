"""The small model: its family, data and three stages.

Trained so far: the autoencoder, both generators, and a ControlNet by stage 1. The numbers of the
ResNet and of stage 3 are first guesses.
"""
