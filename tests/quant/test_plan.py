"""The plan as data: an exact round trip, and nothing else gets in."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.errors import EdgeqError
from edgeq.quant.plan import PRECISIONS, Encoding, OpDecision, QuantPlan, reader_key

SCALE = st.floats(2.0**-126, 2.0**127, width=32)
ENCODING = st.one_of(
    st.builds(
        lambda s, z, o: Encoding("int8", (s,), (z,), origin=o),
        SCALE,
        st.integers(-128, 127),
        st.text(max_size=9),
    ),
    st.builds(
        lambda s, axis: Encoding("int8", tuple(s), (0,) * len(s), axis, True, "weights"),
        st.lists(SCALE, min_size=1, max_size=5),
        st.integers(0, 4),
    ),
    st.builds(
        lambda s: Encoding("int32", tuple(s), tuple(range(len(s))), 0, True),
        st.lists(SCALE, min_size=1, max_size=5),
    ),
    st.builds(
        lambda s, block: Encoding("int4", tuple(s), (0,) * len(s), 1, True, "weights", block),
        st.lists(SCALE, min_size=1, max_size=5),
        st.sampled_from([None, 32]),
    ),
    st.just(Encoding("float16", (1.0,), (0,), None, True, "weights")),
)
DECISION = st.builds(
    OpDecision,
    st.text(max_size=9),
    st.sampled_from(["Conv", "Add", "Relu"]),
    st.sampled_from(PRECISIONS),
    st.text(max_size=9),
    st.none() | st.text(max_size=9),
)
PLANS = st.builds(
    lambda tensors, ops, notes: QuantPlan(tensors, {op.node: op for op in ops}, tuple(notes)),
    st.dictionaries(st.text(max_size=9), ENCODING, max_size=4),
    st.lists(DECISION, max_size=4),
    st.lists(st.text(max_size=9), max_size=2),
)


def small_plan() -> QuantPlan:
    return QuantPlan(
        {
            "x": Encoding("int8", (0.5,), (-3,), origin="minmax"),
            "w": Encoding("int8", (0.25, 0.125), (0, 0), 0, True, "weights"),
        },
        {
            "conv": OpDecision("conv", "Conv", "int8"),
            "relu": OpDecision("relu", "Relu", "int8", fused_into="conv"),
            "soft": OpDecision("soft", "Softmax", "float32", "slow"),
        },
        ("a note",),
    )


@given(PLANS)
def test_json_round_trips_exactly(plan: QuantPlan) -> None:
    text = json.dumps(plan.to_json())
    again = QuantPlan.from_json(json.loads(text))
    assert again == plan
    assert json.dumps(again.to_json()) == text
    assert not plan.diff(again)


def test_float32_scales_survive_bit_for_bit() -> None:
    scales = np.random.default_rng(0).uniform(1e-6, 1, 500).astype(np.float32)
    plan = QuantPlan(
        {"w": Encoding("int8", tuple(float(s) for s in scales), (0,) * 500, 0, True)}, {}
    )
    again = QuantPlan.from_json(json.loads(json.dumps(plan.to_json())))
    np.testing.assert_array_equal(np.array(again.tensors["w"].scale, np.float32), scales)


def test_counts_are_per_precision_and_sorted() -> None:
    counts = small_plan().counts()
    assert tuple(counts) == PRECISIONS
    present = {name: kinds for name, kinds in counts.items() if kinds}
    assert present == {"int8": {"Conv": 1, "Relu": 1}, "float32": {"Softmax": 1}}
    assert list(counts["int8"]) == ["Conv", "Relu"]


def test_diff_names_each_change_once() -> None:
    left = small_plan()
    tensors = dict(left.tensors) | {"x": Encoding("int8", (0.25,), (0,)), "z": left.tensors["x"]}
    del tensors["w"]
    ops = dict(left.ops) | {"conv": OpDecision("conv", "Conv", "float32", "kept")}
    assert left.diff(QuantPlan(tensors, ops)) == (
        "op `conv`: int8 -> float32 (kept)",
        "tensor `w`: int8 x2 on axis 0 0.125..0.25 -> float32",
        "tensor `x`: int8 scale 0.5 zero -3 -> int8 scale 0.25 zero 0",
        "tensor `z`: float32 -> int8 scale 0.5 zero -3",
    )


def test_a_readers_own_encoding_comes_first() -> None:
    own = Encoding("int8", (2.0,), (0,))
    plan = QuantPlan({**small_plan().tensors, reader_key("x", "conv"): own}, {})
    assert plan.encoding("x", "conv") == own
    assert plan.encoding("x", "other") == small_plan().tensors["x"]
    assert plan.encoding("x") == small_plan().tensors["x"]
    assert plan.encoding("nothing", "conv") is None


def edited(path: list[Any], value: Any) -> Any:
    document = json.loads(json.dumps(small_plan().to_json()))
    place = document
    for step in path[:-1]:
        place = place[step]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return document


X = ["tensors", "x"]
FLOAT16 = Encoding("float16", (1.0,), (0,)).to_json()


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (None, "plan is not a table"),
        ([], "plan is not a table"),
        ({}, "missing or unknown keys: `notes`, `ops`, `tensors`"),
        (edited(["extra"], 1), "unknown keys: `extra`"),
        (edited(["tensors"], []), "plan.tensors is not a table"),
        (edited(X, 3), "tensor `x` is not a table"),
        (edited([*X, "dtype"], ...), "`dtype`"),
        (edited([*X, "dtype"], "int9"), 'dtype "int9"'),
        (edited([*X, "dtype"], ["int8"]), r'dtype \["int8"\]'),
        (edited([*X, "scale"], 0.5), "scale is not a list"),
        (edited([*X, "scale"], []), "0 scales and 0 zero points"),
        (edited([*X, "scale"], [0.5, 0.5]), "2 scales and 2 zero points"),
        (edited([*X, "scale"], [0.0]), "scale 0.0"),
        (edited([*X, "scale"], [-1]), "scale -1"),
        (edited([*X, "scale"], [float("nan")]), "scale NaN"),
        (edited([*X, "scale"], [float("inf")]), "scale Infinity"),
        (edited([*X, "scale"], [10**400]), "scale 1000"),
        (edited([*X, "scale"], [True]), "scale true"),
        (edited([*X, "scale"], ["1"]), 'scale "1"'),
        (edited([*X, "scale"], [0.1]), "0.1, which float32 does not hold"),
        (edited([*X, "zero_point"], 128), "zero point 128"),
        (edited([*X, "zero_point"], -129), "zero point -129"),
        (edited([*X, "zero_point"], 1.0), "is not a list"),
        (edited([*X, "zero_point"], True), "zero_point is not an integer"),
        (edited([*X, "zero_point"], [1, 2]), "1 scales and 2 zero points"),
        (edited([*X, "axis"], -1), "axis -1"),
        (edited([*X, "axis"], 64), "axis 64"),
        (edited([*X, "axis"], "0"), "axis is not an integer"),
        (edited([*X, "symmetric"], 1), "symmetric is not true or false"),
        (edited(X, FLOAT16 | {"scale": [0.5]}), "float16 and has a scale other than 1"),
        (edited(X, FLOAT16 | {"zero_point": 1}), "zero point 1"),
        (edited([*X, "origin"], None), "origin is not text"),
        (edited(["ops"], {}), "plan.ops is not a list"),
        (edited(["ops", 0], "conv"), r"ops\[0\] is not a table"),
        (edited(["ops", 0, "precision"], "int4"), r'ops\[0\] has precision "int4"'),
        (edited(["ops", 0, "node"], 1), r"ops\[0\]: node is not text"),
        (edited(["ops", 1, "node"], "conv"), "names a node twice"),
        (edited(["ops", 0, "fused_into"], 5), "fused_into is not text"),
        (edited(["notes"], "all"), "plan.notes is not a list"),
        (edited(["notes", 0], 1), "a note is not text"),
    ],
)
def test_anything_else_is_refused_naming_the_place(document: Any, message: str) -> None:
    with pytest.raises(EdgeqError, match=message) as caught:
        QuantPlan.from_json(document)
    assert caught.value.slug == "bad-plan"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_no_document_gets_anything_but_a_plan_or_the_slug(document: Any) -> None:
    with pytest.raises(EdgeqError, match="not a quantization plan"):
        QuantPlan.from_json(document)


def test_a_block_is_in_the_document_only_where_there_is_one() -> None:
    plain = Encoding("int4", (0.5,), (0,), 0, True)
    assert "block" not in plain.to_json()
    assert replace(plain, block=32).to_json()["block"] == 32


@pytest.mark.parametrize(
    "wrong", [{"dtype": "int8"}, {"axis": None}, {"axis": 2}, {"block": 24}, {"block": 8}]
)
def test_only_matrices_of_int4_have_blocks(wrong: dict[str, object]) -> None:
    document = small_plan().to_json()
    entry = Encoding("int4", (0.5,), (0,), 0, True, block=32).to_json() | wrong
    document["tensors"] = {"w": entry}
    with pytest.raises(EdgeqError, match=r"has blocks of|block is not an integer"):
        QuantPlan.from_json(document)


def test_a_difference_of_blocks_is_told() -> None:
    one = QuantPlan({"w": Encoding("int4", (0.5, 0.25), (0, 0), 0, True)}, {})
    two = QuantPlan({"w": Encoding("int4", (0.5, 0.25), (0, 0), 0, True, block=32)}, {})
    assert one.diff(two) == (
        "tensor `w`: int4 x2 on axis 0 0.25..0.5 -> int4 x2 on axis 0 in blocks of 32 0.25..0.5",
    )
