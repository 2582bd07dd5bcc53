"""Byte layouts that readers and writers share."""
