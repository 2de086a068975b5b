"""The small model: its family, data and three stages.

Trained so far: the autoencoder, and the first half of the multi-step generator. The numbers of all
that follows are first guesses.
"""
