"""`inspect(plan=True)`: what a bundle says of each operator, and bundles that say less or lie."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgeq
from edgeq import EdgeqError
from edgeq.api import inspect
from edgeq.api.planned import plan_document, recorded_errors
from edgeq_runtime import canonical, reader


@pytest.fixture
def bundle(net: Path, images: np.ndarray) -> Path:
    settings = edgeq.BuildSettings(precision="int8", algo="minmax")
    built = edgeq.build(net, target="x86-avx2", settings=settings, data=images)
    return Path(str(built.bundle))


def test_every_operator_has_its_row(bundle: Path) -> None:
    plan = inspect(bundle, plan=True).data["plan"]
    assert [op["op_type"] for op in plan["ops"]] == ["Conv", "Relu", "MaxPool", "Flatten", "Gemm"]
    assert plan["counts"] == {"int8": 5}
    conv, relu, *_, gemm = plan["ops"]
    assert (conv["tensor"], conv["dtype"], conv["minimum"]) == ("c", "int8", 0.0)
    assert conv["maximum"] == pytest.approx(255 * conv["scale"])
    assert (relu["fused_into"], relu["tensor"], relu["scale"]) == (conv["node"], None, None)
    assert (gemm["tensor"], gemm["measured"]) == ("scores", True)
    assert gemm["sqnr_db"] == int(gemm["sqnr_db"]) > 20
    assert gemm["minimum"] < 0 < gemm["maximum"]


def test_a_model_has_no_plan_yet(net: Path) -> None:
    with pytest.raises(
        EdgeqError, match=r"^`net.onnx` is a model: its plan is made .*\[needs-bundle\]$"
    ) as caught:
        inspect(net, plan=True)
    assert "--plan-only" in caught.value.hints[0]


def test_without_being_asked_there_is_no_plan(bundle: Path) -> None:
    assert "plan" not in inspect(bundle).data


def test_a_float_bundle_has_an_empty_plan(net: Path) -> None:
    built = edgeq.build(net, target="rpi5", precision="fp32")
    assert inspect(str(built.bundle), plan=True).data["plan"] == {"counts": {}, "ops": []}


def changed(bundle: Path, **raw: Any) -> reader.Bundle:
    read = reader.read(bundle)
    manifest = dataclasses.replace(read.manifest, raw={**read.manifest.raw, **raw})
    return dataclasses.replace(read, manifest=manifest)


@pytest.mark.parametrize(
    "calibration", [None, {}, [], {"sqnr_db": None}, {"sqnr_db": [1]}, {"sqnr_db": {"scores": "x"}}]
)
def test_errors_that_are_not_there_are_not_measured(bundle: Path, calibration: object) -> None:
    gemm = plan_document(changed(bundle, calibration=calibration))["ops"][-1]
    assert (gemm["measured"], gemm["sqnr_db"]) == (False, None)


def test_a_plan_that_is_none_is_refused(bundle: Path) -> None:
    read = reader.read(bundle)
    for text, slug in ((b"{}", "bad-plan"), (b"[", "damaged-bundle")):
        files = {**read.files, str(read.manifest.plan): text}
        with pytest.raises(EdgeqError, match=rf"\[{slug}\]"):
            plan_document(dataclasses.replace(read, files=files))


def test_a_format_that_nothing_shows_has_rows_without_tensors(bundle: Path) -> None:
    read = reader.read(bundle)
    manifest = dataclasses.replace(read.manifest, artifact_format="other")
    ops = plan_document(dataclasses.replace(read, manifest=manifest))["ops"]
    assert [op["tensor"] for op in ops] == [None] * 5


def test_what_is_recorded_is_whole_decibels_and_canonical() -> None:
    errors = (("a", 23.46), ("b", None), ("c", float("-inf")), ("d", -3.2))
    recorded = recorded_errors(errors)
    assert recorded == {"a": 23, "b": None, "d": -3}
    assert canonical.dumps(recorded) == b'{"a":23,"b":null,"d":-3}'
