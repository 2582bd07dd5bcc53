"""Contents of small bundles, whose `run` is a function: no engine is needed to assemble."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from edgeq.bundle import BundleContents, assemble
from edgeq_runtime import TensorInfo

Run = Callable[[dict[str, Any]], Mapping[str, Any]]


@pytest.fixture(scope="session")
def contents() -> Callable[..., BundleContents]:
    """`contents(**changes)`: what an SDK would say of a model with one input [n, 4]."""

    def make(**changes: Any) -> BundleContents:
        given: dict[str, Any] = {
            "name": "tiny",
            "target": "rpi5",
            "precision": "fp32",
            "artifact": b"the model",
            "inputs": (TensorInfo("x", "float32", ("n", 4)),),
            "outputs": (TensorInfo("y", "float32", ("n", 4)),),
            "input_ranges": {"x": (-2.0, 2.0)},
            "engine": "onnxruntime",
            "engine_measured": "1.31.1",
            "engine_minimum": "1.18.0",
            "exact_kernels": "safe",
            "architecture": "aarch64",
            "required_features": ("asimd",),
            "fast_features": ("asimddp",),
            "card": "# tiny\n",
        }
        return BundleContents(**{**given, **changes})

    return make


@pytest.fixture(scope="session")
def double() -> Run:
    """y = 2 x."""
    return lambda feeds: {"y": feeds["x"] * np.float32(2)}


@pytest.fixture(scope="session")
def files(contents: Callable[..., BundleContents], double: Run) -> Mapping[str, bytes]:
    return assemble(contents(), double)


@pytest.fixture(scope="session")
def other(contents: Callable[..., BundleContents], double: Run) -> Mapping[str, bytes]:
    """Another bundle of the same name."""
    return assemble(contents(artifact=b"another model, longer", notes=("new",)), double)
