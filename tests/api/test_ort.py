"""`--format ort`: measured here where it can be, on its ONNX form where it cannot, and said."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import pytest

import edgeq
from edgeq import BuildSettings, EdgeqError
from edgeq_runtime import reader

HERE, THERE = ("rpi5", "x86-avx2") if platform.machine() == "aarch64" else ("x86-avx2", "rpi5")
ORT = BuildSettings(format="ort")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_for_this_platform_it_is_measured_and_verified_itself(
    net: Path, images: np.ndarray, precision: str
) -> None:
    built = edgeq.build(net, target=HERE, precision=precision, data=images, settings=ORT)
    assert built.ok
    (artifact,) = built.artifacts
    assert (artifact.file, artifact.format) == ("model.ort", "ort")
    bundle = built.bundle or ""
    read = reader.read(bundle)
    assert artifact.size_bytes == built.size_bytes == len(read.artifact)
    assert read.artifact[4:8] == b"ORTM"
    assert not any("onnx form" in note for note in built.notes)
    assert any(note.startswith("model.ort runs on ") for note in built.notes)
    assert edgeq.verify(bundle).passed
    ran = edgeq.api.run(bundle, data=images)
    assert ran.samples == len(images)


def test_for_another_platform_the_onnx_form_is_measured_and_it_is_said(
    net: Path, images: np.ndarray
) -> None:
    built = edgeq.build(net, target=THERE, precision="int8", data=images, settings=ORT)
    assert built.ok
    told = [
        note for note in built.notes if note.startswith("measured on the onnx form of the same")
    ]
    assert len(told) == 1
    assert f"this host is {platform.machine()}" in told[0]
    assert told[0] in reader.read(built.bundle or "").manifest.notes
    with pytest.raises(EdgeqError, match=r"\[wrong-platform\]"):
        edgeq.verify(built.bundle or "")
    assert edgeq.api.inspect(built.bundle or "").data["precision"] == "int8"

    plain = edgeq.build(net, target=THERE, precision="int8", data=images, out="onnx.edgeq")
    one, two = (reader.read(row.bundle or "") for row in (built, plain))
    assert one.golden == two.golden
    assert one.manifest.golden.rules == two.manifest.golden.rules


def test_the_same_bytes_every_time(net: Path, images: np.ndarray) -> None:
    made = [
        edgeq.build(net, target=THERE, precision="int8", data=images, settings=ORT, out=name)
        for name in ("one.edgeq", "two.edgeq")
    ]
    one, two = (Path(built.bundle or "").read_bytes() for built in made)
    assert one == two


def test_quality_and_gate_are_of_the_file_that_ships(net: Path, images: np.ndarray) -> None:
    settings = BuildSettings(format="ort", gate=("size<1kB",), strict=True)
    built = edgeq.build(net, target=HERE, precision="int8", data=images, settings=settings)
    assert built.outcome == "gate-failed"
    assert built.bundle is None
    assert built.artifacts[0].file == "model.ort"


def test_fp16_in_an_ort_file_is_float32_again_and_it_is_said(net: Path) -> None:
    built = edgeq.build(net, target=HERE, precision="fp16", settings=ORT)
    assert any("holds the weights in float32" in note for note in built.notes)
    assert any("no smaller than float" in warning for warning in built.warnings)


def test_auto_is_onnx(net: Path) -> None:
    built = edgeq.build(net, target=HERE, precision="fp32", settings=BuildSettings(format="auto"))
    assert built.artifacts[0].file == "model.onnx"


def test_weights_beside_the_model_do_not_fit(net: Path) -> None:
    from types import SimpleNamespace
    from typing import Any, cast

    from edgeq.api.formats import ship
    from edgeq.api.forms import Form
    from edgeq_runtime.outside import ModelBytes

    work = cast(Any, SimpleNamespace(settings=ORT, form=Form("onnxruntime", "ort")))
    with pytest.raises(EdgeqError, match=r"over 2 GB, which an \.ort file cannot hold"):
        ship(work, ModelBytes.beside(b"", "folder", 3 << 30), None)
