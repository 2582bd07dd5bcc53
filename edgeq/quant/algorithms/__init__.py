"""Rewritings of the float graph that make it easier to quantize, one file each, numpy only.

All but bias correction leave the float function as it is. None is better by rule: the caller keeps
one where the measured error falls.
"""
