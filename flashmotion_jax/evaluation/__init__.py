"""Evaluation: what a generated video is worth, with intervals.

Every part measures arrays and knows no model; `sprites` applies them to the procedural clips.
"""
