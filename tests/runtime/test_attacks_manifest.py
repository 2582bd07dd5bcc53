"""Every attack on manifest.json that FORMAT.md 5 forbids; the rest of the bundle is sound."""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from edgeq_runtime import EdgeqError, canonical, manifest, reader

Bundle = Mapping[str, bytes]
Change = Callable[[dict[str, Any]], Any]
Edited = Callable[[Bundle, Change], Bundle]


def refused(files: Bundle, match: str, slug: str = "damaged-bundle") -> EdgeqError:
    with pytest.raises(EdgeqError, match=match) as caught:
        reader.read(files)
    assert caught.value.slug == slug
    return caught.value


def with_raw(files: Bundle, raw: bytes) -> Bundle:
    return {**files, "manifest.json": raw}


@pytest.mark.parametrize(
    ("raw", "match"),
    [
        (b"", "not JSON at byte 0"),
        (b"{", "not JSON at byte 1"),
        (b"\xff{}", "byte 0 is not ASCII"),
        ('{"a":"\u00e9"}'.encode(), "byte 6 is not ASCII"),
        (b"\xef\xbb\xbf{}", "byte 0 is not ASCII"),
        (b"[]", "not an object"),
        (b"null", "not an object"),
        (b'{"a":1,"a":1}', 'duplicate key "a"'),
        (b'{"a":{"b":1,"b":2}}', 'duplicate key "b"'),
        (b'{"a":NaN}', "NaN is not a number JSON has"),
        (b'{"a":Infinity}', "Infinity is not a number JSON has"),
        (b'{"a":-Infinity}', "-Infinity is not a number JSON has"),
        (b'{"a":1e999}', "number 1e999 is not finite"),
        (b'{"a":' + b"1" * 5000 + b"}", "a number of 5000 characters"),
        (b'{"a":"\\ud800"}', "half a surrogate pair"),
        (b'{"a\\u0000":1}', "holds NUL"),
        (b'{"a": 1}', "not in canonical form"),
        (b'{"a":1}\n', "not in canonical form"),
        (b'{"b":1,"a":1}', "not in canonical form"),
        (b'{"a":1.50}', "not in canonical form"),
        (b'{"a":1E2}', "not in canonical form"),
        (b'{"a":"\\u0041"}', "not in canonical form"),
        (b'{"a":1}{"a":1}', "not JSON at byte 7"),
        (b'{"a":1}', "its digest does not match"),
    ],
)
def test_json_that_is_not_canonical(float_bundle: Bundle, raw: bytes, match: str) -> None:
    refused(with_raw(float_bundle, raw), match)


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_deep_json(float_bundle: Bundle, opening: bytes) -> None:
    refused(with_raw(float_bundle, opening * 100_000), "nested deeper than 32")


def test_brackets_in_strings_are_not_depth() -> None:
    value = {"a": "[" * 1000 + '\\"{', "b": [1, "}}}"]}
    assert canonical.loads(canonical.dumps(value), "m") == value


def test_a_changed_value_under_the_old_digest(float_bundle: Bundle) -> None:
    document = json.loads(float_bundle["manifest.json"])
    document["target"] = "rpi4"
    refused(with_raw(float_bundle, canonical.dumps(document)), "its digest does not match")


def test_the_digest_is_over_the_manifest_with_zeros_in_its_place(float_bundle: Bundle) -> None:
    """So a reader in any language checks it without writing JSON."""
    raw = float_bundle["manifest.json"]
    digest = json.loads(raw)["digest"].encode()
    assert raw.count(digest) == 1
    assert hashlib.sha256(raw.replace(digest, b"0" * 64)).hexdigest() == digest.decode()


def test_a_higher_format(float_bundle: Bundle, edited: Edited) -> None:
    def change(document: dict[str, Any]) -> None:
        document.update(format=2, made_by="2.3.4", needs_runtime="2.0.0", new_thing={})
        del document["files"]

    error = refused(
        edited(float_bundle, change),
        r"^bundle format 2, this runtime reads up to 1: made by edgeq 2\.3\.4, "
        r"needs edgeq-runtime >= 2\.0\.0 \[bundle-version\]$",
        "bundle-version",
    )
    assert error.hints == ("pip install --upgrade edgeq-runtime",)


@pytest.mark.parametrize("value", [0, -1, True, 1.0, "1", None, [1]])
def test_a_format_that_is_no_number(float_bundle: Bundle, edited: Edited, value: object) -> None:
    refused(edited(float_bundle, lambda d: d.update(format=value)), "`format` is .*, wanted 1")


def test_an_unknown_key_is_a_newer_writers(float_bundle: Bundle, edited: Edited) -> None:
    refused(
        edited(float_bundle, lambda d: d["engine"].update(precision="half")),
        "engine: unknown key `precision`: made by edgeq .*, needs edgeq-runtime >= ",
        "bundle-version",
    )


def test_an_unknown_key_that_may_be_ignored(float_bundle: Bundle, edited: Edited) -> None:
    files = edited(float_bundle, lambda d: d.update(x_note={"any": [1]}))
    assert reader.read(files).manifest.name == "tiny"


REQUIRED = [
    *("artifact", "calibration", "cpu", "engine", "exact_kernels", "files", "gate", "golden"),
    *("input_specs", "inputs", "labels", "left_in_float", "made_by", "model", "name", "notes"),
    *("needs_runtime", "ops", "outputs", "plan", "precision", "quality", "target"),
]


@pytest.mark.parametrize("key", REQUIRED)
def test_a_missing_key(float_bundle: Bundle, edited: Edited, key: str) -> None:
    refused(edited(float_bundle, lambda d: d.pop(key)), f"`{key}` is missing")


def test_every_key_of_the_manifest_is_required(float_bundle: Bundle) -> None:
    assert sorted([*REQUIRED, "digest", "format"]) == sorted(
        json.loads(float_bundle["manifest.json"])
    )


CODES = {"name": "x", "dtype": "int8", "shape": [1], "scale": 0.5, "zero_point": 0}


def setting(path: str, value: object) -> Change:
    """A change that puts `value` at `a.b.0.c`."""

    def change(document: Any) -> None:
        *parents, last = path.split(".")
        for key in parents:
            document = document[int(key) if isinstance(document, list) else key]
        document[int(last) if isinstance(document, list) else last] = value

    return change


@pytest.mark.parametrize(
    ("path", "value", "match"),
    [
        ("name", "", "`name` is '', wanted text"),
        ("name", 3, "`name` is 3, wanted text"),
        ("artifact", [], "`artifact` is .*wanted an object"),
        ("artifact.file", "../model.onnx", "is not in `files`"),
        ("artifact.file", "gone.onnx", "`gone.onnx` is not in `files`"),
        ("plan", "gone.json", "`gone.json` is not in `files`"),
        ("inputs", [1], "wanted objects"),
        ("inputs", [{"name": "x", "dtype": "float32", "shape": []}] * 2, "has a name twice"),
        ("inputs.0.scale", 0.5, "`scale` is 0.5, wanted none for float32"),
        ("inputs.0", {**CODES, "dtype": "int64"}, "`scale` is 0.5, wanted none for int64"),
        ("inputs.0", {**CODES, "scale": 0.0}, "`scale` is 0.0, wanted a positive float32"),
        ("inputs.0", {**CODES, "zero_point": 128}, "`zero_point` is 128, wanted a whole"),
        ("inputs.0", {**CODES, "zero_point": None}, "`zero_point` is None, wanted a whole"),
        ("inputs.0.shape", [1.5], "wanted dimensions"),
        ("inputs.0.shape", [-1], "wanted dimensions"),
        ("inputs.0.shape", [1] * 17, "list of at most 16"),
        ("inputs.0.name", "z", "a golden vector has other inputs"),
        ("labels", [1], "wanted texts"),
        ("exact_kernels", "maybe", "wanted safe or needed"),
        ("cpu.required", "asimd", "wanted a list"),
        ("input_specs", {"x": {"resize": -3}}, "`resize` is -3, wanted pixels"),
        ("input_specs", {"z": {}}, "`input_specs` names an unknown tensor"),
        ("files", {"../x": {"size": 0, "sha256": "0" * 64}}, "'../x' is not allowed"),
        ("files", {"manifest.json": {"size": 0, "sha256": "0" * 64}}, "names itself"),
        ("files", {f"f{i}": {"size": 0, "sha256": "0" * 64} for i in range(64)}, "more than 64"),
        ("files.model\\.onnx", None, "wanted an object"),
        ("golden.generator", "mersenne", "wanted splitmix64"),
        ("golden.vectors.0.inputs.0.shape", [2**20, 2**20], "at most 268435456 elements"),
        ("golden.vectors.0.inputs.0.low", 2, "`low` is 2.0, wanted at most `high`"),
        ("golden.vectors.0.inputs.0.low", True, "wanted a number"),
        ("golden.vectors.0.inputs.0.low", -1e39, "with `high` what float32 holds"),
        ("golden.vectors.0.inputs.0.dtype", "int8", "golden `x` does not fit"),
        ("golden.vectors.0.inputs.0.shape", [1, 4], "golden `x` does not fit"),
        ("golden.vectors.0.inputs.0.dtype", "object", "wanted int8 or"),
        ("golden.vectors.0.inputs.0.seed", -1, "whole number in 0.."),
        ("golden.vectors.0.outputs.0.stride", 0, "`stride` is 0"),
        ("golden.vectors.0.outputs.0.size", 4, "wanted 3 elements of float32"),
        ("golden.vectors.0.outputs.0.offset", 4, "a hole in the golden file at 0"),
        ("golden.vectors.0.outputs.0.name", "z", "golden outputs and rules differ"),
        ("golden.vectors.0.outputs.0.dtype", "float128", "wanted int8 or"),
        ("golden.file", None, "does not end at byte"),
        ("golden.rules.y.rule", "near", "wanted codes or equal or tolerance"),
        ("golden.rules.y.absolute", -1, "`absolute` is -1.0, wanted 0 or more"),
        (
            "golden.rules.y",
            {"rule": "codes", "dtype": "uint8", "scale": 0, "zero_point": 0},
            "scale",
        ),
        (
            "golden.rules.y",
            {"rule": "codes", "dtype": "uint8", "scale": 1, "zero_point": 300},
            "`zero_point` is 300",
        ),
        (
            "golden.rules.y",
            {"rule": "codes", "dtype": "uint8", "scale": 1, "zero_point": 0},
            "golden `y` is float32",
        ),
        ("golden.rules", {"z": {"rule": "equal"}}, "golden outputs and rules differ"),
    ],
)
def test_a_value_out_of_range(
    float_bundle: Bundle, edited: Edited, path: str, value: object, match: str
) -> None:
    path = path.replace("\\.", "\0")

    def change(document: dict[str, Any]) -> None:
        if "\0" in path:
            document["files"]["model.onnx"] = value
        else:
            setting(path, value)(document)

    refused(edited(float_bundle, change), match)


@pytest.mark.parametrize("sha256", ["0" * 63, "G" * 64, "A" * 64, ""])
def test_a_digest_that_is_none(float_bundle: Bundle, edited: Edited, sha256: str) -> None:
    change = lambda d: d["files"]["model.onnx"].update(sha256=sha256)  # noqa: E731
    refused(edited(float_bundle, change), "sha256")


def test_a_total_beyond_the_limit(float_bundle: Bundle, edited: Edited) -> None:
    def change(document: dict[str, Any]) -> None:
        for entry in document["files"].values():
            entry["size"] = 2**31

    refused(edited(float_bundle, change), "more than 4294967295 bytes|does not end at byte")


def test_too_many_golden_bytes(float_bundle: Bundle, edited: Edited) -> None:
    def change(document: dict[str, Any]) -> None:
        for vector in document["golden"]["vectors"]:
            vector["outputs"][0].update(shape=[100_000], size=400_000)

    refused(edited(float_bundle, change), "1600000 golden bytes, more than 1000000")


def test_the_manifest_says_what_the_sdk_said(int8_bundle: Bundle) -> None:
    read = reader.read(int8_bundle).manifest
    assert (read.name, read.target, read.precision) == ("tiny", "rpi5", "int8")
    assert (read.artifact, read.artifact_format, read.plan) == ("model.onnx", "onnx", "plan.json")
    assert read.cpu.required == ("asimd",)
    assert read.golden.rules["y"].zero_point == 128
    assert read.to_json()["digest"] == read.digest == manifest.digest(read.to_json())
