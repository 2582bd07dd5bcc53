"""Decisions by measurement: which ranges, which tensors in float, which transforms are kept."""
