"""Measure this project beside its peers, in the same run."""
