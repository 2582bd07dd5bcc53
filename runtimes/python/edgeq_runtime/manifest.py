"""manifest.json as frozen dataclasses, and the parser that takes nothing else. FORMAT.md 5 to 9."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Callable, NoReturn, TypeVar

from edgeq_runtime import archive, canonical, limits
from edgeq_runtime import cpu as cpus
from edgeq_runtime.cpu import Cpu, Needs
from edgeq_runtime.errors import EdgeqError
from edgeq_runtime.golden import (
    FLOATS,
    GENERATOR,
    INTEGERS,
    RULES,
    Golden,
    GoldenInput,
    GoldenOutput,
    Rule,
    Vector,
)
from edgeq_runtime.preprocess import InputSpec
from edgeq_runtime.tensors import Dimension, TensorInfo

NO_DIGEST = "0" * 64
MAX_COMPUTES = 16
KERNELS = ("safe", "needed")
"""exact_kernels: "safe": no kernel can saturate on these weights; "needed": a kernel that
saturates computes other integers."""
CODES = ("int8", "uint8")
STORED = (*CODES, *INTEGERS, *FLOATS, "bool")
_GRIDS = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767)}
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LARGEST = {"float16": 65504.0, "float32": (2 - 2.0**-23) * 2.0**127, "bool": 1.0}
_Row = TypeVar("_Row")


@dataclass(frozen=True)
class FileEntry:
    """Size in bytes and SHA-256 (hex) of one file."""

    size: int
    sha256: str


@dataclass(frozen=True)
class EngineNeeds:
    """The engine the artifact was measured with; `known_bad` is version -> what happens."""

    name: str
    measured: str
    minimum: str
    known_bad: Mapping[str, str]


@dataclass(frozen=True)
class MadeFor:
    """What an artifact in ORT format was optimized for: an architecture, and the version of the
    engine that wrote it, which only newer ones read."""

    platform: str
    engine_version: str


@dataclass(frozen=True)
class Computes:
    """What the engine computes the floats of an artifact in, on a processor with all `features`."""

    features: tuple[str, ...]
    dtype: str


@dataclass(frozen=True)
class Manifest:
    """What a bundle says of itself. `quality`, `gate`, `calibration`, `ops`, `left_in_float` and
    `model` are JSON of the SDK that a runtime only shows. `raw` is the whole document. `weights`
    is the file of weights beside the artifact, of a model that one file cannot hold; `made_for` is
    there for an artifact in ORT format alone. `compute` has its rows in the order to try them, and
    none where every processor computes alike."""

    name: str
    target: str
    precision: str
    artifact: str
    artifact_format: str
    weights: str | None
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    input_specs: Mapping[str, InputSpec]
    labels: tuple[str, ...] | None
    engine: EngineNeeds
    exact_kernels: str
    cpu: Needs
    golden: Golden
    plan: str | None
    notes: tuple[str, ...]
    files: Mapping[str, FileEntry]
    made_by: str
    needs_runtime: str
    digest: str
    raw: Mapping[str, Any]
    made_for: MadeFor | None = None
    compute: tuple[Computes, ...] = ()

    def computes(self, host: Cpu) -> str | None:
        """What this processor computes floats in: "float16", "float32"; None: not said."""
        for row in self.compute:
            if row.features and not host.features:
                return None
            if not cpus.missing(row.features, host):
                return row.dtype
        return None

    def to_json(self) -> dict[str, Any]:
        """The document as read."""
        return dict(self.raw)


def digest(document: Mapping[str, Any]) -> str:
    """SHA-256 over the canonical manifest whose `digest` is 64 zeros."""
    return hashlib.sha256(canonical.dumps({**document, "digest": NO_DIGEST})).hexdigest()


def parse(data: bytes) -> Manifest:
    """Read manifest.json: canonical, its digest right, its format known, every rule kept."""
    document = canonical.loads(data, archive.MANIFEST)
    if not isinstance(document, dict):
        raise canonical.damaged(f"{archive.MANIFEST}: not an object")
    if document.get("digest") != digest(document):
        raise canonical.damaged(f"{archive.MANIFEST}: its digest does not match its contents")
    _check_version(document)
    return _manifest(_Object(document, archive.MANIFEST))


def _check_version(document: Mapping[str, Any]) -> None:
    """`format`, `made_by` and `needs_runtime` mean the same in every format there will be."""
    version = document.get("format")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise canonical.damaged(f"{archive.MANIFEST}: `format` is {version!r:.40}, wanted 1")
    if version > limits.FORMAT:
        raise _newer(f"bundle format {version}, this runtime reads up to {limits.FORMAT}", document)


def _newer(what: str, document: Mapping[str, Any]) -> EdgeqError:
    made = str(document.get("made_by", "unknown"))[:40]
    needs = str(document.get("needs_runtime", "unknown"))[:40]
    return EdgeqError(
        "bundle-version",
        f"{what}: made by edgeq {made}, needs edgeq-runtime >= {needs}",
        "pip install --upgrade edgeq-runtime",
    )


def _manifest(top: _Object) -> Manifest:
    _pass_over(top)
    artifact = top.object("artifact")
    weights = artifact.text("weights") if "weights" in artifact.names() else None
    target = top.text("target")
    manifest = Manifest(
        name=top.text("name"),
        target=target,
        precision=top.text("precision"),
        artifact=artifact.text("file"),
        artifact_format=artifact.text("format"),
        weights=weights,
        inputs=_tensors(top, "inputs"),
        outputs=_tensors(top, "outputs"),
        input_specs=_specs(top.object("input_specs")),
        labels=top.texts("labels") if top.has("labels") else None,
        engine=_engine(top.object("engine")),
        exact_kernels=top.word("exact_kernels", KERNELS),
        cpu=_needs(top.object("cpu"), target),
        golden=_golden(top.object("golden")),
        plan=top.text("plan") if top.has("plan") else None,
        notes=top.texts("notes"),
        files=_files(top.object("files"), weights),
        made_by=top.text("made_by"),
        needs_runtime=top.text("needs_runtime"),
        digest=top.text("digest"),
        raw=top.values,
        made_for=_made_for(artifact),
        compute=_compute(artifact),
    )
    artifact.done()
    top.done()
    _check_references(manifest)
    return manifest


def _pass_over(top: _Object) -> None:
    """What was checked before, and what is only shown."""
    top.integer("format", 1, limits.FORMAT)
    top.text("digest")
    for shown in ("calibration", "gate", "left_in_float", "model", "ops", "quality"):
        top.any(shown)


def _made_for(artifact: _Object) -> MadeFor | None:
    if artifact.text("format") != "ort":
        return None
    return MadeFor(artifact.text("platform"), artifact.text("engine_version"))


def _compute(artifact: _Object) -> tuple[Computes, ...]:
    if "compute" not in artifact.names():
        return ()
    rows = []
    for row in artifact.objects("compute", MAX_COMPUTES):
        rows.append(Computes(row.texts("features"), row.word("computes", ("float16", "float32"))))
        row.done()
    return tuple(rows)


def _check_references(manifest: Manifest) -> None:
    """Names used in one place and defined in another."""
    wanted = (manifest.artifact, manifest.weights, manifest.plan, manifest.golden.file)
    for file in wanted:
        if file is not None and file not in manifest.files:
            raise canonical.damaged(f"{archive.MANIFEST}: `{file}` is not in `files`")
    _check_artifact(manifest)
    inputs = {info.name: info for info in manifest.inputs}
    outputs = {info.name for info in manifest.outputs}
    ruled = [info.name for info in manifest.outputs if info.name in manifest.golden.rules]
    for vector in manifest.golden.vectors:
        if [row.name for row in vector.inputs] != list(inputs):
            raise canonical.damaged(f"{archive.MANIFEST}: a golden vector has other inputs")
        for row in vector.inputs:
            if not inputs[row.name].accepts(row.dtype, row.shape):
                raise canonical.damaged(f"{archive.MANIFEST}: golden `{row.name}` does not fit")
        if [row.name for row in vector.outputs] != ruled:
            raise canonical.damaged(f"{archive.MANIFEST}: golden outputs and rules differ")
    for names, known, what in (
        (set(manifest.golden.rules), outputs, "golden.rules"),
        (set(manifest.input_specs), set(inputs), "input_specs"),
    ):
        if not names <= known:
            raise canonical.damaged(f"{archive.MANIFEST}: `{what}` names an unknown tensor")
    _check_holes(manifest)


def _check_artifact(manifest: Manifest) -> None:
    """Rules 4.4 and 6.6: weights are a file of their own, beside ONNX; what wrote an .ort file is
    the least that reads it."""
    weights, made = manifest.weights, manifest.made_for
    others = (manifest.artifact, manifest.plan, manifest.golden.file, archive.CARD)
    if weights is not None and (weights in others or manifest.artifact_format != "onnx"):
        raise canonical.damaged(f"{archive.MANIFEST}: `{weights}` cannot be the weights")
    if made is not None and made.engine_version != manifest.engine.minimum:
        raise canonical.damaged(
            f"{archive.MANIFEST}: `{manifest.artifact}` was written by {made.engine_version!r:.40},"
            f" and `engine.minimum` is {manifest.engine.minimum!r:.40}"
        )


def _check_holes(manifest: Manifest) -> None:
    """The golden file is used whole: no gap, no overlap, nothing after the last output."""
    end = 0
    for vector in manifest.golden.vectors:
        for output in vector.outputs:
            if output.offset != end:
                raise canonical.damaged(f"{archive.MANIFEST}: a hole in the golden file at {end}")
            end += output.size
    file = manifest.golden.file
    if (manifest.files[file].size if file else 0) != end:
        raise canonical.damaged(f"{archive.MANIFEST}: the golden file does not end at byte {end}")


def _tensors(top: _Object, key: str) -> tuple[TensorInfo, ...]:
    rows = tuple(_tensor(row) for row in top.objects(key, limits.MAX_TENSORS))
    if len({row.name for row in rows}) != len(rows):
        raise canonical.damaged(f"{archive.MANIFEST}: `{key}` has a name twice")
    return rows


def _tensor(row: _Object) -> TensorInfo:
    info = TensorInfo(row.text("name"), row.text("dtype"), row.dimensions("shape"))
    if "scale" in row.names():
        if info.dtype not in _GRIDS:
            row.wrong("scale", row.any("scale"), f"none for {info.dtype}")
        low, high = _GRIDS[info.dtype]
        point = row.integer("zero_point", low, high)
        info = replace(info, scale=row.positive("scale"), zero_point=point)
    row.done()
    return info


def _specs(table: _Object) -> Mapping[str, InputSpec]:
    specs = {}
    for name in table.names():
        row = table.object(name)
        try:
            specs[name] = InputSpec.from_table(name, row.values)
        except EdgeqError as error:
            raise canonical.damaged(f"{archive.MANIFEST}: {error.message}") from None
    return specs


def _engine(row: _Object) -> EngineNeeds:
    bad = row.object("known_bad")
    needs = EngineNeeds(
        row.text("name"),
        row.text("measured"),
        row.text("minimum"),
        {version: bad.text(version) for version in bad.names()},
    )
    row.done()
    return needs


def _needs(row: _Object, target: str) -> Needs:
    needs = Needs(target, row.text("architecture"), row.texts("required"), row.texts("fast"))
    row.done()
    return needs


def _files(table: _Object, weights: str | None) -> Mapping[str, FileEntry]:
    files = {}
    archive.check_names([archive.MANIFEST, *table.names()])
    for name in table.names():
        if name == archive.MANIFEST:
            raise canonical.damaged(f"{archive.MANIFEST}: names itself in `files`")
        row = table.object(name)
        sha256 = row.text("sha256")
        if not _SHA256.fullmatch(sha256):
            row.wrong("sha256", sha256, "64 hex digits")
        most = limits.MAX_WEIGHTS_BYTES if name == weights else limits.MAX_BUNDLE_BYTES
        files[name] = FileEntry(row.integer("size", 0, most), sha256)
        row.done()
    if sum(row.size for name, row in files.items() if name != weights) > limits.MAX_BUNDLE_BYTES:
        raise canonical.damaged(f"{archive.MANIFEST}: more than {limits.MAX_BUNDLE_BYTES} bytes")
    return files


# -- golden ---------------------------------------------------------------------------------------


def _golden(row: _Object) -> Golden:
    rules = row.object("rules")
    golden = Golden(
        generator=row.word("generator", (GENERATOR,)),
        file=row.text("file") if row.has("file") else None,
        vectors=tuple(_vector(item) for item in row.objects("vectors", limits.MAX_VECTORS)),
        rules={name: _rule(rules.object(name)) for name in rules.names()},
    )
    row.done()
    stored = sum(output.size for vector in golden.vectors for output in vector.outputs)
    if stored > limits.MAX_GOLDEN_BYTES:
        raise canonical.damaged(
            f"{archive.MANIFEST}: {stored} golden bytes, more than {limits.MAX_GOLDEN_BYTES}"
        )
    for vector in golden.vectors:
        for output in vector.outputs:
            _check_stored(output, golden.rules.get(output.name))
    return golden


def _check_stored(output: GoldenOutput, rule: Rule | None) -> None:
    if rule is not None and rule.rule == "codes" and output.dtype != rule.dtype:
        raise canonical.damaged(f"{archive.MANIFEST}: golden `{output.name}` is {output.dtype}")


def _vector(row: _Object) -> Vector:
    vector = Vector(
        tuple(_golden_input(item) for item in row.objects("inputs", limits.MAX_TENSORS)),
        tuple(_golden_output(item) for item in row.objects("outputs", limits.MAX_TENSORS)),
    )
    row.done()
    return vector


def _golden_input(row: _Object) -> GoldenInput:
    dtype = row.word("dtype", (*INTEGERS, *FLOATS, "bool"))
    given = GoldenInput(
        name=row.text("name"),
        dtype=dtype,
        shape=row.shape("shape"),
        low=row.number("low"),
        high=row.number("high"),
        seed=row.integer("seed", 0, limits.MAX_INTEGER),
    )
    row.done()
    if given.low > given.high:
        row.wrong("low", given.low, "at most `high`")
    if dtype in INTEGERS:
        _check_integer_range(row, given)
    if max(-given.low, given.high) > _LARGEST.get(dtype, math.inf):
        row.wrong("low", given.low, f"with `high` what {dtype} holds")
    return given


def _check_integer_range(row: _Object, given: GoldenInput) -> None:
    """Whole numbers, inside the dtype, and few enough for 24 drawn bits in 64."""
    bits = int("".join(char for char in given.dtype if char.isdigit()))
    first, last = (
        (0, 2**bits - 1) if given.dtype[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    )
    whole = given.low == int(given.low) and given.high == int(given.high)
    if (
        not whole
        or given.low < first
        or given.high > last
        or given.high - given.low >= limits.MAX_GOLDEN_STEPS
    ):
        row.wrong(
            "low", given.low, f"whole numbers that {given.dtype} holds, at most 2**38 of them"
        )


def _golden_output(row: _Object) -> GoldenOutput:
    output = GoldenOutput(
        name=row.text("name"),
        dtype=row.word("dtype", STORED),
        shape=row.shape("shape"),
        stride=row.integer("stride", 1, limits.MAX_INTEGER),
        offset=row.integer("offset", 0, limits.MAX_GOLDEN_BYTES),
        size=row.integer("size", 0, limits.MAX_GOLDEN_BYTES),
    )
    row.done()
    count = -(-math.prod(output.shape) // output.stride)
    if output.size != count * item_size(output.dtype):
        row.wrong("size", output.size, f"{count} elements of {output.dtype}")
    return output


def item_size(dtype: str) -> int:
    """Bytes of one element of a stored dtype."""
    digits = "".join(char for char in dtype if char.isdigit())
    return int(digits) // 8 if digits else 1


def _rule(row: _Object) -> Rule:
    kind = row.word("rule", RULES)
    rule = Rule(kind)
    if kind == "codes":
        dtype = row.word("dtype", CODES)
        low = -128 if dtype == "int8" else 0
        rule = Rule(kind, dtype, row.positive("scale"), row.integer("zero_point", low, low + 255))
    elif kind == "tolerance":
        absolute = row.number("absolute")
        if absolute < 0:
            row.wrong("absolute", absolute, "0 or more")
        rule = Rule(kind, absolute=absolute)
    row.done()
    return rule


# -- reading JSON ---------------------------------------------------------------------------------


class _Object:
    """One JSON object, read key by key; `done` refuses what was not read."""

    def __init__(
        self, values: Mapping[str, Any], where: str, root: Mapping[str, Any] | None = None
    ) -> None:
        self.values = values
        self.where = where
        self._root = values if root is None else root
        self._read: list[str] = []

    def names(self) -> list[str]:
        return sorted(self.values)

    def done(self) -> None:
        """An unknown key is a newer writer's: what it means cannot be guessed."""
        for key in self.names():
            if key not in self._read and not key.startswith("x_"):
                raise _newer(f"{self.where}: unknown key `{key:.60}`", self._root)

    def wrong(self, key: str, value: Any, wanted: str) -> NoReturn:
        raise canonical.damaged(f"{self.where}: `{key}` is {value!r:.60}, wanted {wanted}")

    def any(self, key: str) -> Any:
        if key not in self.values:
            raise canonical.damaged(f"{self.where}: `{key}` is missing")
        self._read.append(key)
        return self.values[key]

    def has(self, key: str) -> bool:
        """Whether an optional value is there; null means that it is not."""
        return self.any(key) is not None

    def text(self, key: str) -> str:
        value = self.any(key)
        if not isinstance(value, str) or not value:
            self.wrong(key, value, "text")
        return value

    def word(self, key: str, words: tuple[str, ...]) -> str:
        value = self.text(key)
        if value not in words:
            self.wrong(key, value, " or ".join(words))
        return value

    def integer(self, key: str, low: int, high: int) -> int:
        value = self.any(key)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            self.wrong(key, value, f"a whole number in {low}..{high}")
        return value

    def number(self, key: str) -> float:
        value = self.any(key)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or abs(value) > 1e300:
            self.wrong(key, value, "a number")
        return float(value)

    def positive(self, key: str) -> float:
        """A float32 above 0."""
        value = self.number(key)
        if not 2.0**-126 <= value < 2.0**127:
            self.wrong(key, value, "a positive float32")
        return value

    def object(self, key: str) -> _Object:
        value = self.any(key)
        if not isinstance(value, dict):
            self.wrong(key, value, "an object")
        return _Object(value, f"{self.where}: {key:.60}", self._root)

    def objects(self, key: str, most: int) -> tuple[_Object, ...]:
        def one(index: int, value: Any) -> _Object:
            if not isinstance(value, dict):
                self.wrong(key, value, "objects")
            return _Object(value, f"{self.where}: {key}[{index}]", self._root)

        return tuple(one(index, value) for index, value in enumerate(self._list(key, most)))

    def texts(self, key: str) -> tuple[str, ...]:
        return tuple(
            self._each(key, limits.MAX_MANIFEST_BYTES, lambda row: isinstance(row, str), "texts")
        )

    def dimensions(self, key: str) -> tuple[Dimension, ...]:
        return tuple(self._each(key, limits.MAX_RANK, _is_dimension, "dimensions"))

    def shape(self, key: str) -> tuple[int, ...]:
        sizes = tuple(self._each(key, limits.MAX_RANK, _is_size, "sizes"))
        if math.prod(sizes) > limits.MAX_GOLDEN_ELEMENTS:
            self.wrong(key, list(sizes), f"at most {limits.MAX_GOLDEN_ELEMENTS} elements")
        return sizes

    def _each(self, key: str, most: int, good: Callable[[Any], bool], wanted: str) -> list[Any]:
        rows = self._list(key, most)
        if not all(map(good, rows)):
            self.wrong(key, rows, wanted)
        return rows

    def _list(self, key: str, most: int) -> list[Any]:
        value = self.any(key)
        if not isinstance(value, list) or len(value) > most:
            self.wrong(key, value, f"a list of at most {most}")
        return value


def _is_size(value: Any) -> bool:
    return (
        isinstance(value, int) and not isinstance(value, bool) and 0 <= value < limits.MAX_INTEGER
    )


def _is_dimension(value: Any) -> bool:
    return value is None or isinstance(value, str) or _is_size(value)
