"""The registry: every row imports, every miss is told, packages add and never replace."""

import importlib.util
import inspect
import json
from importlib import resources
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from edgeq import registry
from edgeq.errors import EdgeqError
from edgeq_runtime import engines

ROWS = [(kind, name) for kind, table in registry.TABLES.items() for name in table]


@pytest.mark.parametrize(("kind", "name"), ROWS)
def test_every_row_imports_something_callable(kind: str, name: str) -> None:
    if name == "tflite-runtime" and importlib.util.find_spec("tflite_runtime") is None:
        pytest.skip("tflite-runtime is not installed: tests/packaging imports it where it is")
    assert callable(registry.resolve(kind, name))


def test_the_engines_are_the_runtimes() -> None:
    assert tuple(registry.ENGINES) == tuple(engines.ENGINES)
    for name, row in registry.ENGINES.items():
        assert row.split(":")[0] == engines.ENGINES[name]


def test_the_algorithms_are_those_that_the_quantizer_knows() -> None:
    from edgeq.quant.ranges import METHODS

    assert tuple(registry.ALGORITHMS) == METHODS
    parameters = inspect.signature(registry.resolve("algorithms", "minmax")).parameters
    assert {"method", "pair_safe"} <= set(parameters)


@pytest.mark.parametrize("schema", ["edgeq.build-1", "edgeq.plan-1"])
def test_results_may_name_every_algorithm(schema: str) -> None:
    text = resources.files("edgeq").joinpath(f"schemas/{schema}.json").read_text()
    calibration = json.loads(text)["$defs"]["calibration"]
    assert set(calibration["properties"]["method"]["enum"]) <= set(registry.ALGORITHMS)
    assert {"minmax", "p99.999", "p99.99", "p99.9", "mse", "kl"} <= set(
        calibration["properties"]["method"]["enum"]
    )


@pytest.mark.parametrize(
    ("kind", "name", "message", "hint"),
    [
        ("writers", "onx", "there is no writer `onx`", "did you mean `onnx`?"),
        ("readers", "gguf", "there is no reader `gguf`", "one of: `onnx`, `tflite`"),
        ("engines", "onnxruntme", "there is no engine `onnxruntme`", "did you mean `onnxruntime`?"),
        ("algorithms", "p99.9999", "there is no algorithm `p99.9999`", "did you mean `p99.999`?"),
    ],
)
def test_an_unknown_name_is_told_with_what_is_near(
    kind: str, name: str, message: str, hint: str
) -> None:
    with pytest.raises(EdgeqError, match=rf"^{message} \[not-registered\]$") as caught:
        registry.resolve(kind, name)
    assert caught.value.hints == (hint,)


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Any:
    def install(*points: EntryPoint) -> None:
        monkeypatch.setattr(
            registry,
            "_entry_points",
            lambda kind: tuple(p for p in points if p.group == f"edgeq.{kind}"),
        )

    return install


def test_a_package_adds_a_reader(plugin: Any) -> None:
    plugin(EntryPoint("mine", "json:loads", "edgeq.readers"))
    assert registry.resolve("readers", "mine")("1") == 1
    assert registry.names("readers") == ("onnx", "tflite", "mine")
    assert registry.names("writers") == ("onnx", "tflite")


def test_a_package_cannot_replace_a_row(plugin: Any) -> None:
    plugin(EntryPoint("onnx", "json:loads", "edgeq.readers"))
    assert registry.resolve("readers", "onnx").__module__.startswith("edgeq_converters")
    assert registry.names("readers") == ("onnx", "tflite")


@pytest.mark.parametrize("value", ["no_such_module_here:read", "json:no_such_attribute"])
def test_a_broken_package_is_named(plugin: Any, value: str) -> None:
    plugin(EntryPoint("mine", value, "edgeq.readers"))
    with pytest.raises(EdgeqError, match=rf"entry point `mine` of edgeq.readers \(`{value}`\)"):
        registry.resolve("readers", "mine")


def test_real_entry_points_are_asked_for_by_group() -> None:
    assert registry._entry_points("readers") == ()
