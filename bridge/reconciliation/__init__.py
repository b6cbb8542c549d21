"""Comparison of a provider's own counts with ours."""
