"""Quantization as a plan: what becomes int8, with which numbers, and why the rest does not."""
