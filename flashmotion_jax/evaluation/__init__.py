"""Evaluation of generated videos, with confidence intervals.

`evaluate.py` ties it together. `benchmarks/` lists the videos, `metrics/` measures them,
`features/` computes the features of FID and FVD, and `reports/` shows the results.
"""
