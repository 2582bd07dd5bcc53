"""The limits of bundle format 1; FORMAT.md states the same numbers."""

from __future__ import annotations

FORMAT = 1
MAX_FILES = 64
MAX_NAME = 100
"""Characters in a file's name."""
MAX_BUNDLE_BYTES = 2**32 - 1
"""All files and headers together, weights beside a model aside: the zip form needs no zip64."""
MAX_WEIGHTS_BYTES = 2**36
"""The one file of weights beside a model that does not fit into one file; folders only."""
MAX_MANIFEST_BYTES = 4 * 2**20
MAX_JSON_DEPTH = 32
MAX_JSON_NUMBER = 40
"""Characters in a JSON number."""
MAX_TENSORS = 1024
"""Inputs, and outputs."""
MAX_RANK = 16
MAX_VECTORS = 16
MAX_GOLDEN_BYTES = 1_000_000
"""Stored golden outputs, all vectors together."""
MAX_GOLDEN_ELEMENTS = 2**28
"""Elements of one golden input."""
MAX_GOLDEN_STEPS = 2**38
"""Values of an integer golden input: 24 drawn bits times these stay below 2**63."""
MAX_INTEGER = 2**53
"""Integers that every JSON reader holds exactly."""
