"""Features of videos and frames for Fréchet distances, and the networks that compute them."""
