"""Two small bundles, old and new, and what a folder holds: shared by the tests that kill builds."""

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

Tree = Mapping[str, bytes]
NAME = "tiny.edgeq"


def _model(seed: int) -> bytes:
    """Conv 3x3, Relu, Conv 1x1 on [1, 3, 8, 8]: a build of it takes a second."""
    rng = np.random.default_rng(seed)
    weights = {
        "w0": rng.normal(0, 0.3, (8, 3, 3, 3)).astype(np.float32),
        "w1": rng.normal(0, 0.3, (4, 8, 1, 1)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Conv", ["b", "w1"], ["y"], name="second"),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 8, 8])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


@dataclass(frozen=True)
class Workbench:
    """Two models of one name, and the bundle of each in both packagings, checked by `verify`; as
    "weights" in a folder with a file of weights beside."""

    models: Mapping[str, Path]
    bundles: Mapping[tuple[str, str], Path]

    def tree(self, age: str, packaging: str) -> Tree:
        return tree(self.bundles[age, packaging])


def tree(path: Path) -> Tree:
    """Everything under `path`: relative name -> content; {"": content} of a file, {} of nothing."""
    if not path.is_dir():
        return {"": path.read_bytes()} if path.exists() else {}
    return {
        str(file.relative_to(path)): file.read_bytes() if file.is_file() else b"(folder)"
        for file in sorted(path.rglob("*"))
    }


@pytest.fixture(scope="session")
def workbench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    import edgeq
    from edgeq.bundle import WEIGHTS_FILE

    folder = tmp_path_factory.mktemp("workbench")
    models: dict[str, Path] = {}
    bundles: dict[tuple[str, str], Path] = {}
    for seed, age in enumerate(("old", "new")):
        (folder / age).mkdir()
        models[age] = folder / age / "tiny.onnx"
        models[age].write_bytes(_model(seed))
        for packaging in ("zip", "dir"):
            # A bundle holds its name, so all are called the same.
            (folder / age / packaging).mkdir()
            out = bundles[age, packaging] = folder / age / packaging / NAME
            settings = edgeq.BuildSettings(packaging=packaging)
            edgeq.build(models[age], target="rpi5", precision="fp32", out=out, settings=settings)
            assert edgeq.verify(out).ok
        # What a model beyond 2 GB has: the write stage does not ask what the bytes are.
        beside = bundles[age, "weights"] = folder / age / "weights" / NAME
        shutil.copytree(bundles[age, "dir"], beside)
        (beside / WEIGHTS_FILE).write_bytes(bytes([seed]) * 100_000)
    return Workbench(models, bundles)


@pytest.fixture(scope="session")
def import_roots() -> Mapping[str, str]:
    """The environment in which a child imports what this process imports, and writes no .pyc."""
    roots = os.pathsep.join(row for row in sys.path if row)
    return os.environ | {"PYTHONPATH": roots, "PYTHONDONTWRITEBYTECODE": "1"}
