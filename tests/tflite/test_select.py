"""Elements picked, or written, by indices; what follows from shapes; what is refused."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgeq.errors import EdgeqError
from edgeq.quant.plan import Encoding, OpDecision, QuantPlan

RNG = np.random.default_rng(5)
Check = Callable[..., Any]

CONV = "a = Conv <pads = [1,1,1,1]> (x, w)"


def weights(**others: Any) -> dict[str, np.ndarray]:
    arrays = {name: np.asarray(array) for name, array in others.items()}
    return {"w": RNG.normal(0, 0.4, (4, 3, 3, 3)).astype(np.float32), **arrays}


def sizes(rank: int) -> str:
    return "[" + ",".join("ABCDEF"[:rank]) + "]" if rank else ""


@pytest.mark.parametrize("indices", [0, -1, [1], [0, -1], [2, 0, 3], [[1, 0], [-1, 2]], [3, 2, 1]])
@pytest.mark.parametrize("axis", [1, 2, 3])
def test_gather_of_constant_indices(axis: int, indices: Any, check_float: Check) -> None:
    out = f"float{sizes(3 + np.ndim(indices))}"
    call = f"y = Gather <axis = {axis}> (a, i)"
    given = weights(i=np.array(indices))
    check_float(f"g (float[1,3,6,8] x) => ({out} y) {{ {CONV} {call} }}", given)
    check_float(f"g (float[2,4,6,8] a) => ({out} y) {{ {call} }}", {"i": given["i"]})


@pytest.mark.parametrize("shape", ["", "[2]", "[2,2]"])
def test_gather_of_computed_indices(shape: str, check_float: Check) -> None:
    rank = 3 + (0 if not shape else shape.count(",") + 1)
    for dtype in ("int64", "int32"):
        inputs = f"float[1,3,6,8] x, {dtype}{shape} i"
        text = f"g ({inputs}) => (float{sizes(rank)} y) {{ {CONV} y = Gather <axis = 1> (a, i) }}"
        size = [2] * (rank - 3)
        feeds = {"x": RNG.normal(size=(1, 3, 6, 8)).astype(np.float32)}
        feeds["i"] = RNG.integers(-4, 4, size).astype(dtype)
        feeds["i"] = np.asarray(feeds["i"], dtype)
        check_float(text, weights(), feeds=feeds)


def test_a_table_of_tokens(check_float: Check) -> None:
    table = {"t": RNG.normal(size=(7, 5)).astype(np.float32)}
    text = "g (int64[2,3] i) => (float[A,B,C] y) { y = Gather(t, i) }"
    assert dict(check_float(text, table).ops) == {"GATHER": 1}
    text = "g (int64[2,3] i) => (float[A,B,C] y) { y = Gather <axis = 1> (t, i) }"
    check_float(text, table)


@pytest.mark.parametrize("rows", [True, False])
def test_a_table_of_int8(rows: bool, graph_of: Check, pair: Check) -> None:
    table = RNG.normal(size=(7, 5)).astype(np.float32)
    graph = graph_of("g (int64[2,3] i) => (float[A,B,C] y) { y = Gather(t, i) }", {"t": table})
    scale = np.abs(table).max(axis=1) / 127 if rows else np.abs(table).max()[None] / 127
    scales = tuple(float(number) for number in scale.astype(np.float32))
    encoding = Encoding("int8", scales, (0,) * len(scales), 0 if rows else None, True)
    name = str(graph.nodes()[0].name)
    plan = QuantPlan({"t": encoding}, {name: OpDecision(name, "Gather", "int8-weights")})
    if not rows:
        from edgeq_converters.write import tflite

        assert tflite.write(graph, plan)  # ONNX has no form of it
        return
    made = pair(graph, plan)
    feeds = made.samples(1)[0]
    wanted = made.onnx.run(dict(feeds))["y"]
    np.testing.assert_allclose(made.lite.run(feeds)["y"], wanted, 1e-6)
    assert made.lite.ops["EMBEDDING_LOOKUP"] == 1
    assert len(made.lite.data) < 2500


def test_a_table_of_float16(graph_of: Check, pair: Check) -> None:
    table = RNG.normal(size=(7, 5)).astype(np.float32)
    graph = graph_of("g (int64[2,3] i) => (float[A,B,C] y) { y = Gather(t, i) }", {"t": table})
    encoding = Encoding("float16", (1.0,), (0,))
    name = str(graph.nodes()[0].name)
    plan = QuantPlan({"t": encoding}, {name: OpDecision(name, "Gather", "fp16-weights")})
    made = pair(graph, plan)
    feeds = made.samples(1)[0]
    wanted = table.astype(np.float16).astype(np.float32)[feeds["i"]]
    np.testing.assert_array_equal(made.lite.run(feeds)["y"], wanted)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_gather_elements(axis: int, check_float: Check) -> None:
    text = f"""
    g (float[3,4,5] x, int64[2,3,2] i) => (float[A,B,C] y) {{
      y = GatherElements <axis = {axis}> (x, i)
    }}
    """
    feeds = {"x": RNG.normal(size=(3, 4, 5)).astype(np.float32)}
    check_float(text, feeds={**feeds, "i": RNG.integers(-3, 3, (2, 3, 2))})
    text = text.replace(", int64[2,3,2] i", "")
    check_float(text, {"i": RNG.integers(-3, 3, (2, 3, 2))}, feeds=feeds)


def test_gather_nd(check_float: Check) -> None:
    for indices in ([[0, 1], [-1, 2]], [[[1]], [[-2]]]):
        array = np.array(indices)
        rank = array.ndim - 1 + 3 - array.shape[-1]
        text = f"g (float[3,4,5] x) => (float{sizes(rank)} y) {{ y = GatherND(x, i) }}"
        check_float(text, {"i": array})
        shape = ",".join(map(str, array.shape))
        text = text.replace("[3,4,5] x", f"[3,4,5] x, int64[{shape}] i")
        x = RNG.normal(size=(3, 4, 5)).astype(np.float32)
        check_float(text, feeds={"x": x, "i": array})


def test_gather_nd_of_batches(check_float: Check) -> None:
    text = "g (float[2,3,4] x) => (float[A,B,C] y) { y = GatherND <batch_dims = 1> (x, i) }"
    check_float(text, {"i": np.array([[[0], [2]], [[-1], [1]]])})


@pytest.mark.parametrize("reduction", ["none", "add"])
def test_scatter(reduction: str, check_float: Check) -> None:
    attributes = f'<reduction = "{reduction}">'
    text = f"""
    g (float[3,4] x, float[2,4] u) => (float[3,4] y) {{ y = ScatterND {attributes} (x, i, u) }}
    """
    check_float(text, {"i": np.array([[2], [0]])})
    text = f"""
    g (float[3,4] x, float[2,4] u, int64[2,4] i) => (float[3,4] y) {{
      y = ScatterElements {attributes} (x, i, u)
    }}
    """
    feeds = {name: RNG.normal(size=(3, 4)).astype(np.float32) for name in "xu"}
    indices = np.array([[0, 1, 2, -1], [1, 0, 0, 1]])
    check_float(text, feeds={"x": feeds["x"], "u": feeds["u"][:2], "i": indices})


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_one_hot(axis: int, check_float: Check) -> None:
    text = f"g (int64[2,3] i) => (float[A,B,C] y) {{ y = OneHot <axis = {axis}> (i, d, v) }}"
    given = {"d": np.array(4), "v": np.array([-1, 2], np.float32)}
    check_float(text, given, feeds={"i": np.array([[0, 3, -1], [-4, 5, 2]])})


def test_one_hot_of_computed_values(check_float: Check) -> None:
    text = "g (float[3] i, int64[2] v) => (int64[A,B] y) { y = OneHot(i, d, v) }"
    feeds = {"i": np.array([0, 3, -1], np.float32), "v": np.array([5, 7])}
    check_float(text, {"d": np.array(4)}, feeds=feeds)


@pytest.mark.parametrize("upper", [0, 1])
@pytest.mark.parametrize("k", [0, 1, -2])
def test_triangles(upper: int, k: int, check_float: Check) -> None:
    text = "g ({0}[2,4,5] x) => ({0}[2,4,5] y) {{ y = Trilu <upper = {1}> (x, k) }}"
    for dtype in ("float", "int64"):
        check_float(text.format(dtype, upper), {"k": np.array(k)})


def test_what_follows_from_shapes(check_float: Check) -> None:
    text = "g (float[2,3,4] x) => (int64[A] y) { y = Shape <start = 1> (x) }"
    check_float(text)
    check_float("g (float[2,3,4] x) => (int64 y) { y = Size(x) }")
    check_float("g (float[3,4] x) => (float[3,4] y) { e = EyeLike <k = 1> (x) y = Mul(x, e) }")
    body = "c = ConstantOfShape <value = int64[1] {7}> (s) y = Add(x, c)"
    check_float(f"g (int64[3] x) => (int64[3] y) {{ {body} }}", {"s": np.array([3])})
    text = "g (float[300,300] x) => (float[A,B] y) { c = ConstantOfShape(s) y = Add(x, c) }"
    assert check_float(text, {"s": np.array([300, 300])}).ops["FILL"] == 1


EQUATIONS = [
    ("bij,bjk->bik", (2, 3, 4), (2, 4, 5)),
    ("bhid,bhjd->bhij", (2, 3, 4, 5), (2, 3, 6, 5)),
    ("bld,de->ble", (2, 3, 4), (4, 5)),
    ("nchw,ncv->nhwv", (2, 3, 4, 5), (2, 3, 6)),
    ("i,j->ij", (3,), (4,)),
    ("ij,ij->", (3, 4), (3, 4)),
    ("ijk,jl", (3, 4, 2), (4, 5)),
]


@pytest.mark.parametrize(("equation", "one", "other"), EQUATIONS)
def test_einsum(
    equation: str, one: tuple[int, ...], other: tuple[int, ...], check_float: Check
) -> None:
    out = equation.partition("->")[2] if "->" in equation else "ikl"
    text = f"""
    g (float[{",".join(map(str, one))}] a, float[{",".join(map(str, other))}] b)
      => (float{sizes(len(out))} y) {{ y = Einsum <equation = "{equation}"> (a, b) }}
    """
    check_float(text)


def test_einsum_of_one_operand(check_float: Check) -> None:
    for equation in ("ijk->kji", "ijk->ki", "ijk->"):
        rank = len(equation.partition("->")[2])
        call = f'Einsum <equation = "{equation}"> (a)'
        check_float(f"g (float[2,3,4] a) => (float{sizes(rank)} y) {{ y = {call} }}")


REFUSED = {
    "g (float[2,3] x) => (int64[A,B] y) { y = NonZero(x) }": "only when the model runs",
    "g (float[2,3] x, bool[2] c) => (float[A,B] y) { y = Compress <axis = 0> (x, c) }": "it keeps",
    'g (float[2,2] x) => (float[A] y) { y = Einsum <equation = "ii->i"> (x) }': "a diagonal",
    "g (float[2,3] x, int64[1] s, int64[1] e) => (float[A,B] y) { y = Slice(x, s, e) }": "computed",
    "g (double[2] x) => (float[2] y) { y = Cast <to = 16> (x) }": "bfloat16",
}


@pytest.mark.parametrize("text", REFUSED)
def test_refusals(text: str, graph_of: Check) -> None:
    from edgeq_converters.write import tflite

    graph = graph_of(text.replace("(float[2] y) { y = Cast", "(bfloat16[2] y) { y = Cast"))
    with pytest.raises(EdgeqError) as refusal:
        tflite.write(graph, None)
    assert refusal.value.slug == "unwritable-op"
    assert REFUSED[text] in str(refusal.value)
