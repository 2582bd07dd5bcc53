"""Small models that the fuzzer starts from: each a few lines, together most of what files hold."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser

_F = np.float32


def _model(body: str, opset: str = '"": 17', **arrays: np.ndarray) -> ModelProto:
    """`body` in ONNX's text form, with `arrays` as its initializers."""
    model = parser.parse_model(f"<ir_version: 8, opset_import: [{opset}]>\n{body}")
    for name, array in arrays.items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model


def _noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(_F)


def conv_net() -> ModelProto:
    text = """g (float[N,3,8,8] x) => (float[N,5] y) {
        a = Conv <pads = [1,1,1,1]> (x, w)
        b = BatchNormalization (a, s, t, m, v)
        c = Relu (b)
        d = Conv <group = 4> (c, dw, db)
        e = Clip (d, low, high)
        f = GlobalAveragePool (e)
        h = Flatten (f)
        y = Gemm <transB = 1, alpha = 0.5> (h, fc, fb) }"""
    one = np.ones(4, _F)
    return _model(
        text,
        w=_noise(4, 3, 3, 3),
        s=one,
        t=one,
        m=one,
        v=one,
        dw=_noise(4, 1, 3, 3),
        db=one,
        low=np.array(0, _F),
        high=np.array(6, _F),
        fc=_noise(5, 4),
        fb=_noise(5),
    )


def transposed() -> ModelProto:
    text = """g (float[1,4,5,5] x) => (float[1,6,11,11] y) {
        a = ConvTranspose <group = 2, strides = [2,2]> (x, w)
        b = BatchNormalization (a, s, s, s, s)
        c = Mul (b, k)
        y = Add (k2, c) }"""
    k = _noise(6, 1, 1)
    return _model(text, w=_noise(4, 3, 3, 3), s=np.ones(6, _F), k=k, k2=k)


def linear() -> ModelProto:
    text = """g (float[N,6] x) => (float[N,3] y) {
        w2 = Reshape (w, shape)
        a = MatMul (x, w2)
        b = Add (a, bias)
        c = Dropout (b)
        d = Identity (c)
        y = Softmax <axis = 1> (d) }"""
    return _model(text, w=_noise(2, 3, 3), shape=np.array([6, 3]), bias=_noise(3))


def shapes() -> ModelProto:
    text = """g (float[N,3,4,4] x) => (float[N,48] y, float[N,3,8,8] z) {
        s = Shape (x)
        n = Gather <axis = 0> (s, zero)
        u = Unsqueeze (n, axes)
        t = Concat <axis = 0> (u, rest)
        y = Reshape (x, t)
        h = Slice (s, two, four)
        hh = Mul (h, twice)
        nc = Slice (s, axes, two)
        sz = Concat <axis = 0> (nc, hh)
        z = Resize <mode = "linear"> (x, "", "", sz) }"""
    text = text.replace('""', "")
    number = lambda *items: np.array(items, np.int64)  # noqa: E731
    return _model(
        text,
        zero=np.array(0),
        axes=number(0),
        rest=number(48),
        two=number(2),
        four=number(4),
        twice=number(2, 2),
    )


def branches() -> ModelProto:
    text = """g (float[2,4] x, bool c) => (float[2,4] y) {
        z = MatMul (x, w)
        y = If (c) <then_branch = t () => (float[2,4] a) { a = Relu (z) },
                    else_branch = e () => (float[2,4] b) {
                        k = Constant <value = float[4] {1, 2, 3, 4}> ()
                        b = Add (z, k) }> }"""
    return _model(text, w=_noise(4, 4))


def loop() -> ModelProto:
    text = """g (int64 n, float[3] x) => (float[3] y, float[K,3] all) {
        go = Constant <value = bool {1}> ()
        y, all = Loop (n, go, x) <body = b (int64 i, bool c, float[3] s)
            => (bool d, float[3] t, float[3] scan) {
            d = Identity (c)
            t = Add (s, w)
            scan = Identity (t) }> }"""
    return _model(text, w=_noise(3))


def recurrent() -> ModelProto:
    text = """g (float[5,1,4] x) => (float[5,1,1,6] y, float[1,1,6] h) {
        y, h = LSTM <hidden_size = 6> (x, w, r, b)
        g1, g2 = GRU <hidden_size = 6> (x, gw, gr) }"""
    return _model(
        text,
        w=_noise(1, 24, 4),
        r=_noise(1, 24, 6),
        b=_noise(1, 48),
        gw=_noise(1, 18, 4),
        gr=_noise(1, 18, 6),
    )


def attention() -> ModelProto:
    text = """g (float[1,T,8] x, bool[1,T,T] m) => (float[1,T,8] y) {
        q = MatMul (x, wq)
        k = MatMul (x, wk)
        kt = Transpose <perm = [0,2,1]> (k)
        s = MatMul (q, kt)
        e = Where (m, s, low)
        p = Softmax <axis = -1> (e)
        o = MatMul (p, x)
        n = LayerNormalization (o, scale)
        y = Add (n, x) }"""
    low = np.array(-np.inf, _F)
    return _model(text, wq=_noise(8, 8), wk=_noise(8, 8), low=low, scale=np.ones(8, _F))


def old_forms() -> ModelProto:
    text = """g (float[1,2,4,4] x, float[2] w) => (float[1,2,8,8] y, float[2,4,4] z, float[1,2] q) {
        a = Upsample <mode = "nearest"> (x, scales)
        b = Clip <min = 0.0, max = 6.0> (a)
        y, mask = Dropout <ratio = 0.5> (b)
        c = Squeeze <axes = [0]> (x)
        d = Pad <pads = [0,0,0,0,0,0]> (c)
        z = Slice <starts = [0], ends = [9], axes = [0]> (d)
        r = ReduceMean <axes = [2,3], keepdims = 0> (x)
        t = Softmax (r)
        q = Add (t, w) }"""
    scales = np.array([1, 1, 2, 2], _F)
    model = _model(text, '"": 9', scales=scales, w=_noise(2))
    model.ir_version = 4
    return model


def first_forms() -> ModelProto:
    text = """g (float[1,3,8,8] x, float[3] s) => (float[1,12] y) {
        a = BatchNormalization <momentum = 0.9> (x, s, s, s, s)
        b = Dropout (a)
        c = MaxPool <kernel_shape = [2,2], strides = [4,4]> (b)
        d = Upsample <mode = "nearest", scales = [1.0,1.0,1.0,1.0]> (c)
        y = Reshape (d, shape) }"""
    model = _model(text, '"": 7', s=np.ones(3, _F), shape=np.array([1, 12]))
    model.ir_version = 3
    return model


def newest() -> ModelProto:
    text = """g (float[N,4] x) => (float[N,2,2] y) {
        a = HardSwish (x)
        b = Selu (a)
        c = Cast <to = 10> (b)
        d = Cast <to = 1> (c)
        y = Reshape (d, shape) }"""
    return _model(text, '"": 23', shape=np.array([-1, 2, 2]))


def quantized() -> ModelProto:
    text = """g (float[1,4] x) => (float[1,3] y) {
        q = QuantizeLinear (x, s, z)
        d = DequantizeLinear (q, s, z)
        w = DequantizeLinear <axis = 1> (wq, ws)
        a = MatMul (d, w)
        r = QuantizeLinear (a, s, z)
        y = DequantizeLinear (r, s, z) }"""
    return _model(
        text,
        s=np.array(0.1, _F),
        z=np.array(3, np.uint8),
        wq=np.arange(12, dtype=np.int8).reshape(4, 3),
        ws=np.full(3, 0.1, _F),
    )


def foreign() -> ModelProto:
    text = """g (float[N,4] x) => (float[N,4] y, float[N,1] z) {
        a = com.microsoft.Gelu (x)
        b = ai.onnx.ml.Scaler <offset = [0.5], scale = [2.0]> (a)
        y = Relu (b)
        z = ai.onnx.ml.LinearRegressor <coefficients = [1.0,2.0,3.0,4.0]> (x) }"""
    return _model(text, '"": 18, "com.microsoft": 1, "ai.onnx.ml": 3')


def functions() -> ModelProto:
    text = """<ir_version: 8, opset_import: ["": 18, "own": 1]>
        g (float[N,4] x) => (float[N,4] y) { a = own.twice <alpha = 0.5> (x)  y = own.inner (a) }
        <domain: "own", opset_import: ["": 18, "own": 1]>
        twice <alpha> (x) => (y) { a = LeakyRelu <alpha: float = @alpha> (x)  y = own.inner (a) }
        <domain: "own", opset_import: ["": 18]>
        inner (x) => (y) { y = Add (x, x) }"""
    return parser.parse_model(text)


def outside() -> ModelProto:
    """Its weights lie in `w.bin` beside the file: 64 bytes, which the worker writes."""
    model = _model("g (float[N,4] x) => (float[N,4] y) { y = MatMul (x, w) }")
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 4])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "w.bin"), ("offset", "0"), ("length", "64")):
        tensor.external_data.add(key=key, value=value)
    model.graph.initializer.append(tensor)
    return model


def constants() -> ModelProto:
    text = """g (float[2,3] x) => (float[2,3] y, int64[M] k) {
        n = ConstantOfShape <value = int64[1] {3}> (shape)
        r = Range (zero, limit, one)
        t = Tile (r, n1)
        o = OneHot <axis = -1> (t, depth, onoff)
        e = Expand (o, wide)
        p = Pad (e, pads)
        s = ReduceSum <keepdims = 0> (p)
        c = CumSum (r, zero)
        k = NonZero (c)
        f = Cast <to = 1> (s)
        y = Add (x, f) }"""
    whole = lambda *items: np.array(items, np.int64)  # noqa: E731
    return _model(
        text.replace("int64[M] k", "int64[1,M] k"),
        shape=whole(1),
        zero=np.array(0),
        limit=np.array(4),
        one=np.array(1),
        n1=whole(2),
        depth=np.array(5),
        onoff=whole(0, 1),
        wide=whole(2, 8, 5),
        pads=whole(0, 0, 0, 0, 1, 1),
    )


def lists() -> ModelProto:
    text = """g (float[4,3] x) => (float[4,3] y, int64[2] top) {
        a, b = Split <axis = 0, num_outputs = 2> (x)
        c = Concat <axis = 0> (a, b)
        seq = SplitToSequence <axis = 0> (c)
        y = ConcatFromSequence <axis = 0> (seq)
        m = ReduceMax <keepdims = 0> (y, ax)
        v, top = TopK (m, two)
        u = Einsum <equation = "ij,ij->i"> (a, b)
        w = Trilu (y) }"""
    return _model(text, '"": 18', ax=np.array([1]), two=np.array([2]))


def unusual() -> ModelProto:
    """Scan, strings inside, a sparse constant, 4-bit weights."""
    text = """g (float[3,2] x) => (float[2] y, float[3,2] z) {
        y, z = Scan <num_scan_inputs = 1, body = b (float[2] s, float[2] e)
            => (float[2] t, float[2] o) { t = Add (s, e)  o = Identity (t) }> (start, x)
        k = Constant <value_string = "text"> ()
        l = Constant <value_floats = [1.0, 2.0]> ()
        w = DequantizeLinear (four, step)
        v = Add (l, w) }"""
    model = _model(text, '"": 21', start=np.zeros(2, _F), step=np.array(0.5, _F))
    model.ir_version = 10
    model.graph.initializer.append(helper.make_tensor("four", TensorProto.INT4, [2], [1, 2]))
    return model


SEEDS: tuple[Callable[[], ModelProto], ...] = (
    conv_net,
    transposed,
    linear,
    shapes,
    branches,
    loop,
    recurrent,
    attention,
    old_forms,
    first_forms,
    newest,
    quantized,
    foreign,
    functions,
    outside,
    constants,
    lists,
    unusual,
)


@cache
def serialized() -> tuple[bytes, ...]:
    """Every seed as a file."""
    return tuple(make().SerializeToString() for make in SEEDS)


@cache
def operator_names() -> tuple[str, ...]:
    """Every operator of ONNX, for swaps."""
    return tuple(sorted({schema.name for schema in onnx.defs.get_all_schemas()}))
