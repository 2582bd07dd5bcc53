"""The ONNX backend node tests through edgeq: read, passes, both writers, both engines.

A case is one model of the onnx package with inputs and expected outputs. Its layer parameters
(weights, axes, shapes: `PARAMETERS`) become constants, as they are in exported models; what is left
is fed. The ONNX file that edgeq writes runs in ONNX Runtime, the TFLite file in LiteRT, and both
must give the expected outputs within the suite's own tolerances, types and shapes included. Of
cases with an operator outside the TFLite writer's table only the ONNX side counts.

    python tests/conformance/run.py [--all] [--trace] [PATTERN ...]

prints what does not pass and the counts; `--all` runs the cases outside the table too, `--record`
writes `skips.tsv` and `failures.tsv` anew, `--json` prints every outcome for the test beside this.
"""

from __future__ import annotations

import argparse
import collections
import fnmatch
import json
import multiprocessing
import os
import re
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
LIMIT_S = 60.0
"""A case that takes longer is a failure."""

FLOAT_TYPES = {1: "float32", 6: "int32", 7: "int64", 9: "bool"}
"""Element types of what is under test: float models, their indices and masks."""

MOST_AXES = 5

_AFTER_FIRST = tuple(range(1, 8))
_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
PARAMETERS: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(
        (
            *("BatchNormalization", "Conv", "ConvTranspose", "CumSum", "Dropout", "Expand", "Gemm"),
            *("GroupNormalization", "InstanceNormalization", "LayerNormalization", "Pad", "PRelu"),
            *("RMSNormalization", "Reshape", "Resize", "Slice", "Split", "Squeeze", "Tile"),
            *("TopK", "Trilu", "Unsqueeze", "Upsample", "Clip", "CenterCropPad", "DFT"),
            *(f"Reduce{kind}" for kind in _REDUCTIONS),
        ),
        _AFTER_FIRST,
    ),
    "ConstantOfShape": (0,),
    "OneHot": (1,),
    "Range": (0, 1, 2),
    "GRU": (1, 2, 3, 4),
    "LSTM": (1, 2, 3, 4, 7),
    "RNN": (1, 2, 3, 4),
}
"""Inputs of a node that are no data: they are constants in the models that people have."""


@dataclass(frozen=True)
class Outcome:
    """What became of one case: "pass", or why not. `skip` is a reason that is no failure."""

    name: str
    covered: bool
    onnx: str
    tflite: str
    skip: str = ""


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("patterns", nargs="*")
    for flag in ("all", "trace", "record", "json"):
        parser.add_argument(f"--{flag}", action="store_true")
    parser.add_argument("--jobs", type=int, default=min(4, os.cpu_count() or 1))
    given = parser.parse_args()
    began = time.monotonic()
    cases = [case for case in _cases() if _is_wanted(case.name, given.patterns)]
    if not given.all:
        cases = [case for case in cases if is_covered(case.model)]
    outcomes = list(_run_all(cases, given.jobs, given.trace))
    if given.json:
        print(json.dumps([asdict(outcome) for outcome in outcomes]))
        return 0
    for outcome in outcomes:
        for writer, said in (("onnx", outcome.onnx), ("tflite", outcome.tflite)):
            if said != "pass" and (not outcome.skip or given.patterns):
                print(f"{outcome.name}\t{writer}\t{said}\t{outcome.skip}")
    if given.record:
        record(outcomes)
    print(summary(outcomes), f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    return 0


def _is_wanted(name: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatch.fnmatch(name, f"*{pattern}*") for pattern in patterns)


def summary(outcomes: Sequence[Outcome]) -> str:
    """The counts of a run, in one line."""
    covered = [outcome for outcome in outcomes if outcome.covered and not outcome.skip]
    parts = [f"{len(covered)} covered"]
    for writer in ("onnx", "tflite"):
        passed = sum(getattr(outcome, writer) == "pass" for outcome in covered)
        parts.append(f"{writer} {passed} ({100 * passed / max(len(covered), 1):.1f} %)")
    both = sum(outcome.onnx == outcome.tflite == "pass" for outcome in covered)
    parts.append(f"both {both} ({100 * both / max(len(covered), 1):.1f} %)")
    parts.append(f"{sum(bool(outcome.skip) for outcome in outcomes)} skipped")
    return ", ".join(parts)


def record(outcomes: Sequence[Outcome]) -> None:
    """Write the lists that the test holds a run against."""
    import onnx

    covered = [outcome for outcome in outcomes if outcome.covered]
    skips = [f"{outcome.name}\t{outcome.skip}" for outcome in covered if outcome.skip]
    failures = [
        f"{outcome.name}\t{writer}\t{_without_paths(getattr(outcome, writer))}"
        for outcome in covered
        for writer in ("onnx", "tflite")
        if not outcome.skip and getattr(outcome, writer) != "pass"
    ]
    heads = {
        "skips": ("case", "why it is no test of ours"),
        "failures": ("case", "writer", "what does not pass, and why"),
    }
    version = ".".join(onnx.__version__.split(".")[:2])
    for name, rows in (("skips", skips), ("failures", failures)):
        first = f"# onnx {version}: {summary(outcomes)}"
        lines = [first, "\t".join(heads[name]), *sorted(rows)]
        (HERE / f"{name}.tsv").write_text("\n".join(lines) + "\n", "utf-8")


def _without_paths(said: str) -> str:
    """Engines name the files they were built from, which says nothing here."""
    return re.sub(r" /[^ ]+", "", said)


# -- the cases


def _cases() -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests

        return sorted(load_model_tests(kind="node"), key=lambda case: str(case.name))


def is_covered(model: Any) -> bool:
    """Whether the TFLite writer has a form of every operator of an ONNX model."""
    from edgeq_converters.write.tfl.families import handlers

    names = [
        node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}:{node.op_type}"
        for node in model.graph.node
    ]
    return all(name in handlers() or name == "Constant" for name in names)


def _wrong_type(model: Any) -> str:
    """The first type of an input or output that is no float, index or mask."""
    for value in (*model.graph.input, *model.graph.output):
        kind = value.type.WhichOneof("value")
        if kind != "tensor_type":
            return f"dtype: {str(kind).removesuffix('_type')}"
        elem = value.type.tensor_type.elem_type
        if elem not in FLOAT_TYPES:
            import onnx

            return f"dtype: {onnx.TensorProto.DataType.Name(elem).lower()}"
    return ""


def _with_parameters(case: Any, cases: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The model with its parameters as initializers, and what is fed."""
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    values = list(case.data_sets[0][0])
    base = cases.get(str(case.name).split("_expanded")[0], case)
    frozen = {
        name
        for node in base.model.graph.node
        for at, name in enumerate(node.input)
        if name and at in PARAMETERS.get(node.op_type, ())
    }
    places = [at for at, row in enumerate(base.model.graph.input) if row.name in frozen]
    feeds: dict[str, Any] = {}
    kept = []
    for at, (row, value) in enumerate(zip(case.model.graph.input, values, strict=True)):
        if at in places:
            model.graph.initializer.append(onnx.numpy_helper.from_array(value, row.name))
        else:
            kept.append(row)
            feeds[row.name] = np.asarray(value)
    del model.graph.input[:]
    model.graph.input.extend(kept)
    return model, feeds


# -- one case


class Refused(Exception):
    """An EdgeqError, as its slug and message."""


def run_case(case: Any, cases: Mapping[str, Any], trace: bool) -> Outcome:
    covered = is_covered(case.model)
    skip = _wrong_type(case.model)
    if skip:
        return Outcome(case.name, covered, skip, skip, skip)
    model, feeds = _with_parameters(case, cases)
    expected = dict(
        zip([row.name for row in case.model.graph.output], case.data_sets[0][1], strict=True)
    )
    onnx_said, graph = _attempt(lambda: _read(model), trace)
    tflite_said = onnx_said
    if graph is not None:
        skip = _out_of_reach(graph)
        onnx_said, _ = _attempt(lambda: _check(case, expected, _onnx_run(graph, feeds)), trace)
        tflite_said = "not in the table"
        if covered:
            said, _ = _attempt(lambda: _check(case, expected, _tflite_run(graph, feeds)), trace)
            tflite_said = said
    if tflite_said == onnx_said == "pass":
        skip = ""
    return Outcome(case.name, covered, onnx_said, tflite_said, skip)


def _attempt(step: Any, trace: bool) -> tuple[str, Any]:
    from edgeq.errors import EdgeqError

    try:
        return "pass", step()
    except EdgeqError as error:
        said = f"refused: {error.message} [{error.slug}]"
    except AssertionError as error:
        if trace:
            traceback.print_exc()
        said = f"wrong: {_one_line(error) or _place(error)}"
    except Exception as error:  # noqa: BLE001  # a crash of ours is an outcome here
        if trace:
            traceback.print_exc()
        said = f"error: {type(error).__name__}: {_one_line(error)} ({_place(error)})"
    return said[:300], None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _place(error: BaseException) -> str:
    """Module and function where it happened: no line numbers, which change."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(last.filename).name}: {last.name}"


def _read(model: Any) -> Any:
    from edgeq.passes import run_all
    from edgeq_converters.read.onnx import read

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "case.onnx"
        path.write_bytes(model.SerializeToString())
        return run_all(read(path).graph)[0]


def _out_of_reach(graph: Any) -> str:
    """Why a TFLite file of float and static sizes cannot hold the graph."""
    from edgeq.ir import dtype_of, static_shape
    from edgeq_converters.write.tfl import batch

    fixed = batch.fixed(graph).graph
    for value in fixed.values():
        shape, dtype = static_shape(value), dtype_of(value)
        if value.shape is not None and len(value.shape) > MOST_AXES:
            return f"rank {len(value.shape)}"
        if dtype not in ("", *FLOAT_TYPES.values()):
            return f"dtype: {dtype}"
        if shape is None:
            return "dynamic shape"
    return ""


def _check(case: Any, expected: Mapping[str, Any], got: Mapping[str, Any]) -> None:
    """The suite's own comparison: shape, type, then rtol and atol of the case."""
    for name, reference in expected.items():
        value = got[name]
        reference = np.asarray(reference)
        assert value.shape == reference.shape, f"{name}: {value.shape} for {reference.shape}"
        assert value.dtype == reference.dtype, f"{name}: {value.dtype} for {reference.dtype}"
        close = np.isclose(value, reference, rtol=case.rtol, atol=case.atol, equal_nan=True)
        assert close.all(), f"{name}: {np.count_nonzero(~close)} of {close.size} values differ"


def _onnx_run(graph: Any, feeds: dict[str, Any]) -> dict[str, Any]:
    from edgeq_converters.write.onnx import write
    from edgeq_runtime import engines

    session = engines.get("onnxruntime").open_session(write(graph, None), threads=1)
    found: dict[str, Any] = session.run(feeds)
    return found


def _tflite_run(graph: Any, feeds: dict[str, Any]) -> dict[str, Any]:
    from edgeq_converters.write.tflite import write
    from edgeq_runtime import engines

    session = engines.get("litert").open_session(write(graph, None), threads=1)
    found: dict[str, Any] = session.run(feeds)
    return found


# -- children: a crash of an engine is an outcome too


def _run_all(cases: Sequence[Any], jobs: int, trace: bool) -> Iterator[Outcome]:
    """Every case in children that are forked with the cases loaded; in order."""
    context = multiprocessing.get_context("fork")
    every = {str(case.name): case for case in _all_bases(cases)}
    waiting = collections.deque(range(len(cases)))
    done: dict[int, Outcome] = {}
    busy: dict[Connection, tuple[Any, int, float]] = {}
    idle: list[tuple[Connection, Any]] = []
    while waiting or busy:
        while waiting and len(busy) < jobs:
            connection, child = idle.pop() if idle else _child(context, cases, every, trace)
            at = waiting.popleft()
            connection.send(at)
            busy[connection] = (child, at, time.monotonic())
        ready = wait(list(busy), timeout=1.0)
        for connection in list(busy):
            child, at, since = busy[connection]
            late = time.monotonic() - since > LIMIT_S
            if connection not in ready and not late:
                continue
            del busy[connection]
            try:
                assert connection in ready
                done[at] = connection.recv()
                idle.append((connection, child))
            except (EOFError, ConnectionError, AssertionError):
                child.kill()
                child.join()
                said = "crash: too slow" if late else f"crash: exit {child.exitcode}"
                done[at] = Outcome(cases[at].name, is_covered(cases[at].model), "pass", said)
    for connection, child in idle:
        connection.send(None)
        child.join()
    return (done[at] for at in range(len(cases)))


def _all_bases(cases: Sequence[Any]) -> Sequence[Any]:
    """The cases and those that their expansions come from."""
    names = {str(case.name) for case in cases}
    wanted = {name.split("_expanded")[0] for name in names} - names
    return [*cases, *(case for case in _cases() if wanted and case.name in wanted)]


def _child(context: Any, cases: Any, every: Any, trace: bool) -> tuple[Connection, Any]:
    ours, theirs = context.Pipe()
    child = context.Process(target=_serve, args=(theirs, ours, cases, every, trace), daemon=False)
    child.start()
    theirs.close()
    return ours, child


def _serve(
    connection: Connection, parents_end: Connection, cases: Any, every: Any, trace: bool
) -> None:
    parents_end.close()
    warnings.simplefilter("ignore")
    if not trace:  # what engines say of their own is not the result
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    while (at := connection.recv()) is not None:
        connection.send(run_case(cases[at], every, trace))


if __name__ == "__main__":
    sys.exit(main())
