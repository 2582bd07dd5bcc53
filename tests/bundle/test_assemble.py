"""What goes into a bundle: golden vectors, rules, digests; the same contents, the same bytes."""

import dataclasses
import hashlib
import json
import math
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq import bundle
from edgeq.bundle import BundleContents, assemble, float_tolerance
from edgeq.errors import EdgeqError
from edgeq_runtime import InputSpec, TensorInfo, archive, canonical, golden, limits, reader

Contents = Callable[..., BundleContents]
Run = Callable[[dict[str, Any]], Mapping[str, Any]]


class Function:
    """A session that is a function."""

    def __init__(self, function: Run) -> None:
        self.run = function


def self_test(files: Mapping[str, bytes], run: Run) -> tuple[golden.OutputCheck, ...]:
    read = reader.read(files)
    return golden.compare(Function(run), read.manifest.golden, read.golden)


def test_a_bundle_is_what_the_reader_reads(files: Mapping[str, bytes], double: Run) -> None:
    read = reader.read(files).manifest
    assert sorted(files) == ["CARD.md", "golden.bin", "manifest.json", "model.onnx"]
    assert next(iter(files)) == "manifest.json"
    assert (read.name, read.target, read.precision, read.engine.minimum) == (
        "tiny",
        "rpi5",
        "fp32",
        "1.18.0",
    )
    assert read.cpu.fast == ("asimddp",)
    assert all(check.passed for check in self_test(files, double))


def test_digests_are_those_of_the_files(files: Mapping[str, bytes]) -> None:
    table = json.loads(files["manifest.json"])["files"]
    assert sorted(table) == ["CARD.md", "golden.bin", "model.onnx"]
    for name, row in table.items():
        assert row == {
            "size": len(files[name]),
            "sha256": hashlib.sha256(files[name]).hexdigest(),
        }


def test_everything_that_was_said_is_in_the_manifest(contents: Contents, double: Run) -> None:
    said: dict[str, Any] = {
        "model": {"name": "m.onnx"},
        "ops": {"int8": {"Conv": 4}},
        "left_in_float": [{"node": "s", "op_type": "Softmax", "reason": "no kernel"}],
        "quality": [{"metric": "top1", "value": 0.5}],
        "gate": {"passed": True},
        "calibration": {"samples": 8},
        "notes": ["a note"],
    }
    spec = InputSpec(resize=4)
    given = contents(
        **said,
        labels=["caf\u00e9", "b"],
        plan={"tensors": {"x": {"scale": [0.1]}}},
        input_specs={"x": spec},
        engine_known_bad={"1.21.0": "dies"},
    )
    files = assemble(given, double)
    document = json.loads(files["manifest.json"])
    assert {key: document[key] for key in said} == said
    assert document["plan"] == "plan.json"
    assert json.loads(files["plan.json"]) == given.plan
    read = reader.read(files).manifest
    assert read.labels == ("caf\u00e9", "b")
    assert read.input_specs == {"x": spec}
    assert read.engine.known_bad == {"1.21.0": "dies"}


def test_the_same_contents_give_the_same_bytes(contents: Contents, double: Run) -> None:
    ops = {"int8": {"Conv": 1, "Add": 2}}
    turned = {"int8": {"Add": 2, "Conv": 1}}
    assert assemble(contents(ops=ops), double) == assemble(contents(ops=turned), double)


def test_hash_seeds_change_nothing() -> None:
    code = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        "import hashlib, numpy as np\n"
        "from edgeq import bundle\n"
        "from edgeq_runtime import TensorInfo, archive\n"
        "names = ['x', 'longer', 'z']\n"
        "c = bundle.BundleContents('n', 't', 'p', b'm', "
        "[TensorInfo(n, 'float32', (2,)) for n in names],"
        "[TensorInfo(n + 'o', 'float32', (2,)) for n in names], {n: (0, 1) for n in set(names)},"
        "'e', '1', '1', 'safe', 'a', (), (), 'card', notes=())\n"
        "f = bundle.assemble(c, lambda feeds: {n + 'o': feeds[n] for n in set(names)})\n"
        "print(hashlib.sha256(archive.pack(f)).hexdigest())\n"
    )
    found = set()
    for seed in ("0", "1", "77"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(done.stdout)
    assert len(found) == 1


# -- golden inputs --------------------------------------------------------------------------------


def test_golden_inputs_are_four_seeded_and_inside_the_ranges(
    contents: Contents, double: Run
) -> None:
    vectors = reader.read(assemble(contents(), double)).manifest.golden.vectors
    assert len(vectors) == 4
    arrays = [vector.inputs[0].array() for vector in vectors]
    assert all(array.shape == (1, 4) and (abs(array) <= 2).all() for array in arrays)
    assert len({array.tobytes() for array in arrays}) == 4


def test_two_inputs_do_not_get_the_same_numbers(contents: Contents) -> None:
    infos = (TensorInfo("a", "float32", (8,)), TensorInfo("b", "float32", (8,)))
    given = contents(inputs=infos, outputs=infos[:1], input_ranges={"a": (0, 1), "b": (0, 1)})
    files = assemble(given, lambda feeds: {"a": feeds["a"]})
    for vector in reader.read(files).manifest.golden.vectors:
        a, b = (row.array() for row in vector.inputs)
        assert not np.intersect1d(a, b).size


def test_golden_shapes_fill_unknown_dimensions(contents: Contents, double: Run) -> None:
    files = assemble(contents(golden_shapes={"x": (3, 4)}), double)
    row = reader.read(files).manifest.golden.vectors[0]
    assert (row.inputs[0].shape, row.outputs[0].shape) == ((3, 4), (3, 4))


@pytest.mark.parametrize(
    ("dtype", "given", "low", "high"),
    [
        ("int64", (-0.5, 9.5), 0, 9),
        ("int64", (-(2.0**63), 2.0**63), -(2**53), -(2**53) + 2**38 - 1),
        ("uint8", (0.0, 255.0), 0, 255),
        ("int32", (0.2, 0.7), 1, 1),
    ],
)
def test_ranges_of_integer_inputs_are_whole(
    contents: Contents, dtype: str, given: tuple[float, float], low: int, high: int
) -> None:
    info = TensorInfo("x", dtype, (5,))
    made = contents(inputs=(info,), outputs=(info,), input_ranges={"x": given})
    files = assemble(made, lambda feeds: dict(feeds) | {"y": feeds["x"]})
    row = reader.read(files).manifest.golden.vectors[0].inputs[0]
    assert (row.low, row.high) == (low, high)


def test_text_inputs_have_no_golden_vectors(contents: Contents, double: Run) -> None:
    info = TensorInfo("x", "object", (1,))
    files = assemble(contents(inputs=(info,), input_ranges={}), double)
    assert "golden.bin" not in files
    assert reader.read(files).manifest.golden.vectors == ()


# -- golden outputs -------------------------------------------------------------------------------


def quantized(feeds: Mapping[str, Any]) -> dict[str, Any]:
    codes = np.clip(np.rint(feeds["x"] / 0.25) + 3, -128, 127)
    return {"y": ((codes - 3) * np.float32(0.25)).astype(np.float32)}


EXACT = {"y": {"dtype": "int8", "scale": 0.25, "zero_point": 3}}


def test_dequantized_outputs_are_stored_as_codes(contents: Contents) -> None:
    files = assemble(contents(exact_outputs=EXACT), quantized)
    read = reader.read(files)
    assert read.manifest.golden.rules["y"] == golden.Rule("codes", "int8", 0.25, 3)
    assert len(read.golden) == 4 * 4
    assert all(check.passed for check in self_test(files, quantized))
    off = self_test(files, lambda feeds: {"y": quantized(feeds)["y"] + np.float32(0.25)})
    assert (off[0].mismatches, off[0].max_lsb) == (16, 1)


def test_an_output_that_is_not_what_the_plan_says_is_our_own_mistake(
    contents: Contents, double: Run
) -> None:
    with pytest.raises(AssertionError, match=r"output `y` is not \(code - 3\) \* 0.25"):
        assemble(contents(exact_outputs=EXACT), double)


def test_float_outputs_have_a_derived_tolerance(contents: Contents, double: Run) -> None:
    files = assemble(contents(float_depths={"y": (2, 9)}), double)
    rule = reader.read(files).manifest.golden.rules["y"]
    largest = max(abs(double({"x": v.inputs[0].array()})["y"]).max() for v in vectors(files))
    assert rule.absolute == float_tolerance(float(largest), 2, 9)
    assert rule.absolute == 8 * 2 * 3 * 2**-24 * float(largest)


def vectors(files: Mapping[str, bytes]) -> tuple[golden.Vector, ...]:
    return reader.read(files).manifest.golden.vectors


def test_a_tolerance_that_was_given_outranks_it(contents: Contents, double: Run) -> None:
    files = assemble(contents(tolerances={"y": 0.5}, float_depths={"y": (9, 9)}), double)
    assert reader.read(files).manifest.golden.rules["y"].absolute == 0.5


@given(st.integers(1, 64), st.integers(1, 4096))
def test_the_tolerance_covers_sums_in_another_order(layers: int, terms: int) -> None:
    """A float32 sum forwards and pairwise: both within it, relative to the sum of magnitudes."""
    rng = np.random.default_rng(terms)
    x = rng.normal(size=terms).astype(np.float32)
    exact = math.fsum(float(v) for v in x)
    magnitude = float(abs(x).sum(dtype=np.float64))
    forward = float(np.cumsum(x, dtype=np.float32)[-1])
    assert abs(forward - exact) <= float_tolerance(magnitude, 1, terms)
    assert abs(float(x.sum()) - exact) <= float_tolerance(magnitude, layers, terms)


def test_integers_and_bools_are_equal_or_not(contents: Contents) -> None:
    infos = (TensorInfo("i", "int64", (4,)), TensorInfo("b", "bool", (4,)))

    def run(feeds: Mapping[str, Any]) -> dict[str, Any]:
        row = feeds["x"].reshape(-1)
        return {"i": (row * 100).astype(np.int64), "b": row > 0}

    files = assemble(contents(outputs=infos), run)
    checks = self_test(files, run)
    assert [(c.name, c.rule, c.passed) for c in checks] == [
        ("i", "equal", True),
        ("b", "equal", True),
    ]


def test_text_outputs_are_not_compared(contents: Contents) -> None:
    infos = (TensorInfo("y", "float32", (4,)), TensorInfo("s", "object", (1,)))

    def run(feeds: Mapping[str, Any]) -> dict[str, Any]:
        return {"y": feeds["x"][0], "s": np.array(["a"], dtype=object)}

    assert set(reader.read(assemble(contents(outputs=infos), run)).manifest.golden.rules) == {"y"}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_outputs_that_are_never_finite_are_no_golden_vectors(
    contents: Contents, value: float
) -> None:
    files = assemble(contents(), lambda feeds: {"y": feeds["x"] * np.float32(value)})
    assert reader.read(files).manifest.golden.vectors == ()


def test_inputs_outside_the_models_domain_are_passed_over(contents: Contents) -> None:
    def run(feeds: Mapping[str, Any]) -> dict[str, Any]:
        with np.errstate(invalid="ignore", divide="ignore"):
            first = feeds["x"].reshape(-1)[0]
            return {"y": feeds["x"] * np.sqrt(first)}  # NaN for about half of the drawn inputs

    files = assemble(contents(), run)
    golden = reader.read(files).manifest.golden
    assert 0 < len(golden.vectors) <= 4
    assert all(check.passed for check in self_test(files, run))


@pytest.mark.parametrize("size", [10, 62_499, 62_500, 62_501, 1_000_003])
@pytest.mark.parametrize("exact", [False, True])
def test_large_outputs_are_sampled_evenly_under_the_cap(
    contents: Contents, size: int, exact: bool
) -> None:
    info = TensorInfo("y", "float32", (size,))
    row = (np.arange(size) % 200 - 100).astype(np.float32) * np.float32(0.25)

    def run(_: Mapping[str, Any]) -> dict[str, Any]:
        return {"y": row}

    rules = {"y": {"dtype": "int8", "scale": 0.25, "zero_point": 0}} if exact else {}
    files = assemble(contents(outputs=(info,), exact_outputs=rules), run)
    read = reader.read(files)
    output = read.manifest.golden.vectors[0].outputs[0]
    assert len(read.golden) <= limits.MAX_GOLDEN_BYTES
    whole = size * (1 if exact else 4) * 4 <= limits.MAX_GOLDEN_BYTES
    assert (output.stride == 1) == whole
    assert len(read.golden) > 0.9 * min(limits.MAX_GOLDEN_BYTES, size * (1 if exact else 4) * 4) / 2
    assert all(check.passed for check in self_test(files, run))


def test_one_large_output_leaves_room_for_the_small(contents: Contents) -> None:
    infos = (TensorInfo("big", "float32", (10**6,)), TensorInfo("small", "float32", (5,)))

    def run(_: Mapping[str, Any]) -> dict[str, Any]:
        return {"big": np.ones(10**6, np.float32), "small": np.ones(5, np.float32)}

    rows = reader.read(assemble(contents(outputs=infos), run)).manifest.golden.vectors[0].outputs
    assert {row.name: row.stride for row in rows}["small"] == 1


def test_outputs_without_elements(contents: Contents) -> None:
    def run(_: Mapping[str, Any]) -> dict[str, Any]:
        return {"y": np.zeros((0, 4), np.float32)}

    files = assemble(contents(), run)
    assert "golden.bin" not in files
    assert all(check.passed for check in self_test(files, run))


# -- limits ---------------------------------------------------------------------------------------


def test_a_manifest_beyond_the_limit(contents: Contents, double: Run) -> None:
    with pytest.raises(
        EdgeqError, match=r"^the manifest would have \d+ bytes.*\[bundle-too-large\]$"
    ):
        assemble(contents(notes=("x" * limits.MAX_MANIFEST_BYTES,)), double)


def test_a_bundle_beyond_the_limit(
    contents: Contents, double: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_BUNDLE_BYTES", 2000)
    with pytest.raises(EdgeqError, match=r"^the bundle would have \d+ bytes, more than 2000"):
        assemble(contents(), double)


def test_an_input_beyond_the_limit(contents: Contents, double: Run) -> None:
    info = TensorInfo("x", "float32", (2**15, 2**15))
    with pytest.raises(EdgeqError, match=r"input `x` has 1073741824 elements \[bundle-too-large\]"):
        assemble(contents(inputs=(info,)), double)


def test_the_zip_size_is_known_before(files: Mapping[str, bytes]) -> None:
    assert archive.zip_size(files) == len(archive.pack(files))


def test_contents_are_frozen(contents: Contents) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        contents().name = "other"  # type: ignore[misc]


def test_the_plan_is_canonical(contents: Contents, double: Run) -> None:
    plan = {"b": [1.5, 2], "a": {"x": None}}
    assert assemble(contents(plan=plan), double)[bundle.PLAN_FILE] == canonical.dumps(plan)
