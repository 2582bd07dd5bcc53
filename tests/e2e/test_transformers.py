"""Transformers end to end: the choice of static, dynamic or mixed int8, by default and forced."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import edgeq
from edgeq import BuildSettings
from edgeq_runtime import reader

WIDTH, HEADS, HIDDEN, VOCABULARY, LAYERS = 64, 4, 256, 400, 2
OUTLIERS, FACTOR = 3, 8.0

LAYER = """
    q# = MatMul(x#, wq#)  k# = MatMul(x#, wk#)  v# = MatMul(x#, wv#)
    qh# = Reshape(q#, split)  kh# = Reshape(k#, split)  vh# = Reshape(v#, split)
    qt# = Transpose <perm = [0,2,1,3]> (qh#)  kt# = Transpose <perm = [0,2,3,1]> (kh#)
    vt# = Transpose <perm = [0,2,1,3]> (vh#)
    s# = MatMul(qt#, kt#)  n# = Mul(s#, root)  p# = Softmax(n#)  c# = MatMul(p#, vt#)
    ct# = Transpose <perm = [0,2,1,3]> (c#)  cj# = Reshape(ct#, join)
    o# = MatMul(cj#, wo#)  ob# = Add(o#, bo#)  r# = Add(ob#, x#)
    a# = LayerNormalization <axis = -1> (r#, g#, e#)
    f# = MatMul(a#, wf#)  fb# = Add(f#, bf#)
    d# = Div(fb#, half)  er# = Erf(d#)  e1# = Add(er#, one)  m1# = Mul(fb#, e1#)
    h# = Mul(m1#, point)
    t# = MatMul(h#, wt#)  tb# = Add(t#, bt#)  u# = Add(tb#, a#)
    x%  = LayerNormalization <axis = -1> (u#, g2#, e2#)"""


def encoder(path: Path) -> Path:
    """A post-norm encoder of two layers: tokens [n, s] -> hidden [n, s, 64].

    A few channels of every LayerNormalization stand out, as in trained encoders; one range for a
    whole tensor then costs static int8 most, whose ranges must hold for all samples.
    """
    rng = np.random.default_rng(3)
    nodes = "x0 = Gather(table, ids)\n" + "\n".join(
        LAYER.replace("#", str(layer)).replace("%", str(layer + 1)) for layer in range(LAYERS)
    )
    body = f"g (int64[n,s] ids) => (float[n,s,{WIDTH}] y) {{ {nodes} y = Identity(x{LAYERS}) }}"
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{body}')
    arrays: dict[str, np.ndarray] = {
        "table": rng.normal(size=(VOCABULARY, WIDTH)),
        "split": np.array([0, 0, HEADS, WIDTH // HEADS]),
        "join": np.array([0, 0, WIDTH]),
        "root": np.array((WIDTH / HEADS) ** -0.5),
        "half": np.array(2**0.5),
        "one": np.array(1.0),
        "point": np.array(0.5),
    }
    for layer in range(LAYERS):
        shapes = dict.fromkeys(("wq", "wk", "wv", "wo"), (WIDTH, WIDTH))
        shapes |= {"wf": (WIDTH, HIDDEN), "wt": (HIDDEN, WIDTH)}
        for name, shape in shapes.items():
            arrays[f"{name}{layer}"] = rng.normal(size=shape) / np.sqrt(shape[0])
        for name, size in (("bo", WIDTH), ("bf", HIDDEN), ("bt", WIDTH)):
            arrays[f"{name}{layer}"] = rng.normal(size=size) * 0.1
        for name in ("e", "e2"):
            arrays[f"{name}{layer}"] = rng.normal(size=WIDTH) * 0.1
        for name in ("g", "g2"):
            arrays[f"{name}{layer}"] = rng.uniform(0.5, 1.5, WIDTH)
    for gain, readers in (("g0", ["wf0"]), ("g20", ["wq1", "wk1", "wv1"]), ("g1", ["wf1"])):
        channels = rng.integers(0, WIDTH, OUTLIERS)
        arrays[gain][channels] *= FACTOR
        for weight in readers:
            arrays[weight][channels] /= FACTOR
    for name, array in arrays.items():
        whole = array.dtype == np.int64
        stored = array if whole else array.astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(stored, name))
    path.write_bytes(model.SerializeToString())
    return path


def sentences(count: int = 24) -> Iterator[dict[str, np.ndarray]]:
    rng = np.random.default_rng(8)
    for _ in range(count):
        yield {"ids": rng.integers(0, VOCABULARY, (1, int(rng.integers(4, 24))))}


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return encoder(tmp_path / "encoder.onnx")


def built(model: Path, acts: str = "auto", target: str = "x86-vnni", **more: Any) -> edgeq.Build:
    settings = BuildSettings(acts=acts, **more)
    return edgeq.build(model, target=target, precision="int8", data=sentences, settings=settings)


def kinds(build: edgeq.Build) -> dict[str, int]:
    """Layers on constant matrices, by precision."""
    return {name: counted["MatMul"] for name, counted in build.ops.items() if "MatMul" in counted}


def sqnr(build: edgeq.Build) -> float:
    found = build.fidelity.outputs[0].sqnr_db
    assert found is not None
    return found


@pytest.mark.parametrize("acts", ["static", "dynamic", "mixed", "fp32"])
def test_each_way_when_asked_for(model: Path, acts: str) -> None:
    build = built(model, acts)
    layers = 6 * LAYERS
    counts = kinds(build)
    wanted = {"static": "int8", "dynamic": "dynamic-int8", "mixed": "dynamic-int8"}
    assert counts.get(wanted.get(acts, "int8-weights"), 0) >= layers
    assert build.ops["int8-weights"]["Gather"] == 1
    assert edgeq.verify(build.bundle).passed
    # a byte for four and the scales, beside some 10 kB of nodes and names
    assert build.size_bytes < 0.26 * build.float_size_bytes + 30_000
    # three dB under what each measured: weights alone, then one, many and fixed ranges of inputs
    assert sqnr(build) > {"fp32": 35, "dynamic": 28, "mixed": 27, "static": 25}[acts]
    # mixed leaves nothing to static int8 here: a Softmax of codes over a free axis may meet one
    # token, which ONNX Runtime gets wrong, so what reads it stays float
    assert (build.calibration is None) == (acts != "static")


def test_the_default_is_measured_and_said(model: Path) -> None:
    build = built(model)
    (line,) = [note for note in build.notes if "int8: " in note and note.startswith("search: ")]
    scores = {acts: sqnr(built(model, acts)) for acts in ("static", "dynamic")}
    assert max(scores.values()) - sqnr(build) < 2.0, (line, scores)
    kept = line.removeprefix("search: ").partition(" ")[0]
    assert kinds(build).keys() & {"int8": 1, "dynamic-int8": 1}
    assert kept in ("static", "dynamic")


def test_no_data_is_needed_for_dynamic_and_stored(model: Path) -> None:
    settings = BuildSettings(weights="int8", acts="dynamic", shape={"ids": (1, 16)})
    build = edgeq.build(model, target="rpi5", settings=settings)
    assert build.precision == "int8"
    assert kinds(build)["dynamic-int8"] == 6 * LAYERS
    assert "assumed precision int8: `--weights int8 --acts dynamic` was given" in build.notes
    assert not [line for line in build.warnings if "not calibrated" in line]
    assert edgeq.verify(build.bundle).passed


def test_the_same_bundle_twice(model: Path) -> None:
    assert built(model).digest == built(model).digest


def test_pairs_are_safe_for_a_target_without_vnni(model: Path) -> None:
    from edgeq.numerics.pair_safe import PAIR_LIMIT, pair_peak

    build = built(model, "dynamic", target="x86-avx2")
    artifact = onnx.load_from_string(reader.read(build.bundle).artifact)
    arrays = {row.name: numpy_helper.to_array(row) for row in artifact.graph.initializer}
    layers = [node for node in artifact.graph.node if node.op_type == "MatMulInteger"]
    assert len(layers) == 6 * LAYERS
    for node in layers:
        assert pair_peak(arrays[node.input[1]].T).max() <= PAIR_LIMIT


# -- the real one -------------------------------------------------------------------------------

MINILM_BYTES = 90_359_644


def _pairs(shared: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    with np.load(shared / "data" / "text_minilm" / "data.npz") as data:
        return data["ids_a"], data["ids_b"], data["score"]


def _feeds(row: np.ndarray) -> dict[str, np.ndarray]:
    ids = row[None, : int((row != 0).sum())].astype(np.int64)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def _embeddings(run: Any, rows: np.ndarray) -> np.ndarray:
    """Mean of the hidden states, of length 1."""
    found = []
    for row in rows:
        (hidden,) = run(_feeds(row)).values()
        mean = hidden[0].mean(axis=0)
        found.append(mean / np.linalg.norm(mean))
    return np.array(found)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks with ties at their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def _spearman(run: Any, shared: Path) -> float:
    first, second, score = _pairs(shared)
    close = (_embeddings(run, first) * _embeddings(run, second)).sum(axis=1)
    return float(np.corrcoef(_ranks(close), _ranks(score))[0, 1])


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize(("acts", "least"), [("auto", 0.865), ("static", 0.860), ("mixed", 0.860)])
def test_minilm(shared: Path, tmp_path: Path, acts: str, least: float) -> None:
    """What the issue asks of sentence embeddings: all 1500 pairs, by exact kernels.

    Float has 0.8672 (notes quant-quality 7.3); the default must also be 0.27 of its size.
    """
    first, _, _ = _pairs(shared)

    def samples() -> Iterator[dict[str, np.ndarray]]:
        yield from map(_feeds, first[:64])

    build = edgeq.build(
        shared / "data" / "text_minilm" / "minilm.onnx",
        target="x86-avx2",
        precision="int8",
        data=samples,
        out=tmp_path / "minilm.edgeq",
        settings=BuildSettings(acts=acts),
    )
    assert build.size_bytes <= 0.27 * MINILM_BYTES
    with edgeq.load(build.bundle, exact=True, threads=1) as runner:
        assert _spearman(runner.run, shared) >= least
