"""Adaptive Depth Networks: residual stages whose second sub-path can be skipped."""
