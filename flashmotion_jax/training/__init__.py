"""Training: the stages of FlashMotion, and how a run is watched."""
