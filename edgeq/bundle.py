"""Make bundles: assemble the files, write them as one zip or a folder, all at once or not at all.

What a bundle is, rule by rule, is in runtimes/FORMAT.md; reading and checking is edgeq_runtime's.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import math
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edgeq.errors import EdgeqError
from edgeq_runtime import archive, canonical, golden, limits, manifest
from edgeq_runtime.golden import Golden, GoldenInput, GoldenOutput, Rule, Vector
from edgeq_runtime.tensors import TensorInfo
from edgeq_runtime.version import __version__

if TYPE_CHECKING:
    import numpy as np

    from edgeq_runtime.preprocess import InputSpec

    Array = np.ndarray[Any, Any]


class Weights(Protocol):
    """A file too large for memory: its size, and its bytes in order, made anew at each call."""

    @property
    def size_bytes(self) -> int: ...

    def pieces(self) -> Iterator[bytes]: ...


NEEDS_RUNTIME = "0.1.0"
"""The first edgeq-runtime that reads format 1."""

VECTORS, ATTEMPTS = 4, 16
GOLDEN_FILE = "golden.bin"
PLAN_FILE = "plan.json"
WEIGHTS_FILE = "model.weights"
"""What the artifact of a model beyond 2 GB calls the file of its weights."""

UNIT_ROUNDOFF = 2.0**-24
CONFIDENCE = 8.0
FLOAT_LAYERS, FLOAT_TERMS = 32, 1024
"""Depth and longest sum that are assumed of a float output about which nothing was said."""


@dataclass(frozen=True)
class BundleContents:
    """Everything a bundle says. JSON values are what `to_json` of their types gave.

    exact_outputs: output -> {"dtype": "int8" | "uint8", "scale", "zero_point"} where an output is
    a dequantized integer. input_ranges: input -> (low, high), from which golden inputs are drawn;
    every input needs one, bool inputs aside. exact_kernels: "safe" when no kernel can saturate on
    these weights, else "needed". float_depths: output -> (float layers before it, terms of the
    longest sum in them); tolerances: output -> absolute tolerance, which outranks it. weights: what
    the artifact finds in `WEIGHTS_FILE` beside it, where one file cannot hold it all.
    computes: (CPU features, "float16" or "float32") in the order to try them, where processors
    differ. golden_shapes: input -> the shape of golden inputs where a dimension is unknown (default
    1).
    """

    name: str
    target: str
    precision: str
    artifact: bytes
    inputs: Sequence[TensorInfo]
    outputs: Sequence[TensorInfo]
    input_ranges: Mapping[str, tuple[float, float]]
    engine: str
    engine_measured: str
    engine_minimum: str
    exact_kernels: str
    architecture: str
    required_features: Sequence[str]
    fast_features: Sequence[str]
    card: str
    artifact_file: str = "model.onnx"
    artifact_format: str = "onnx"
    computes: Sequence[tuple[Sequence[str], str]] = ()
    weights: Weights | None = None
    exact_outputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    input_specs: Mapping[str, InputSpec] = field(default_factory=dict)
    labels: Sequence[str] | None = None
    engine_known_bad: Mapping[str, str] = field(default_factory=dict)
    model: Any = None
    ops: Any = None
    left_in_float: Any = None
    quality: Any = None
    gate: Any = None
    calibration: Any = None
    plan: Any = None
    notes: Sequence[str] = ()
    tolerances: Mapping[str, float] = field(default_factory=dict)
    float_depths: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    golden_shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)


Run = Callable[[dict[str, Any]], Mapping[str, Any]]

# -- assemble -------------------------------------------------------------------------------------


def assemble(contents: BundleContents, run: Run) -> dict[str, bytes]:
    """All files of the bundle, name -> contents; the same bytes from the same contents.

    `run` is an exact session of the artifact: it computes the golden outputs. Raises
    [bundle-too-large] beyond the format's limits.
    """
    vectors, stored = _golden(contents, run)
    files = {
        contents.artifact_file: contents.artifact,
        archive.CARD: contents.card.encode("utf-8"),
    }
    if stored:
        files[GOLDEN_FILE] = stored
    if contents.plan is not None:
        files[PLAN_FILE] = canonical.dumps(contents.plan)
    document = _document(contents, vectors, files)
    document["digest"] = manifest.digest(document)
    files[archive.MANIFEST] = canonical.dumps(document)
    _check_size(files)
    return {name: files[name] for name in archive.check_names(files)}


def _check_size(files: Mapping[str, bytes]) -> None:
    for what, size, most in (
        ("the manifest", len(files[archive.MANIFEST]), limits.MAX_MANIFEST_BYTES),
        ("the bundle", archive.zip_size(files), limits.MAX_BUNDLE_BYTES),
    ):
        if size > most:
            raise EdgeqError(
                "bundle-too-large", f"{what} would have {size} bytes, more than {most}"
            )


def _document(c: BundleContents, vectors: Golden, files: Mapping[str, bytes]) -> dict[str, Any]:
    """The manifest but for its digest."""
    return {
        "format": limits.FORMAT,
        "digest": manifest.NO_DIGEST,
        "made_by": __version__,
        "needs_runtime": NEEDS_RUNTIME,
        "name": c.name,
        "model": c.model,
        "target": c.target,
        "precision": c.precision,
        "artifact": {"file": c.artifact_file, "format": c.artifact_format, **_made_for(c)}
        | _weights(c)
        | _computes(c),
        "inputs": [_tensor(info) for info in c.inputs],
        "outputs": [_tensor(info) for info in c.outputs],
        "input_specs": {name: spec.to_json() for name, spec in c.input_specs.items()},
        "labels": None if c.labels is None else list(c.labels),
        **_needs(c),
        "ops": c.ops,
        "left_in_float": c.left_in_float,
        "quality": c.quality,
        "gate": c.gate,
        "calibration": c.calibration,
        "plan": None if c.plan is None else PLAN_FILE,
        "notes": list(c.notes),
        "golden": _golden_json(vectors),
        "files": {
            name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in files.items()
        }
        | _weights_entry(c.weights),
    }


def _made_for(c: BundleContents) -> dict[str, str]:
    """What an ORT-format file is tied to."""
    if c.artifact_format != "ort":
        return {}
    return {"platform": c.architecture, "engine_version": c.engine_measured}


def _computes(c: BundleContents) -> dict[str, Any]:
    """In what each processor computes floats, where they differ."""
    rows = [{"features": list(features), "computes": kind} for features, kind in c.computes]
    return {"compute": rows} if rows else {}


def _weights(c: BundleContents) -> dict[str, str]:
    return {} if c.weights is None else {"weights": WEIGHTS_FILE}


def _weights_entry(weights: Weights | None) -> dict[str, Any]:
    """Their row in the table of files; reads them once."""
    if weights is None:
        return {}
    digest = hashlib.sha256()
    for piece in weights.pieces():
        digest.update(piece)
    return {WEIGHTS_FILE: {"size": weights.size_bytes, "sha256": digest.hexdigest()}}


def _needs(c: BundleContents) -> dict[str, Any]:
    """What the artifact asks of a device."""
    return {
        "engine": {
            "name": c.engine,
            "measured": c.engine_measured,
            "minimum": c.engine_minimum,
            "known_bad": dict(c.engine_known_bad),
        },
        "exact_kernels": c.exact_kernels,
        "cpu": {
            "architecture": c.architecture,
            "required": list(c.required_features),
            "fast": list(c.fast_features),
        },
    }


def _tensor(info: TensorInfo) -> dict[str, Any]:
    row = {"name": info.name, "dtype": info.dtype, "shape": list(info.shape)}
    if info.scale is None:
        return row
    return {**row, "scale": info.scale, "zero_point": info.zero_point}


def _golden_json(vectors: Golden) -> dict[str, Any]:
    return {
        "generator": vectors.generator,
        "file": vectors.file,
        "rules": {name: _without_none(rule) for name, rule in vectors.rules.items()},
        "vectors": [
            {
                "inputs": [{**vars(row), "shape": list(row.shape)} for row in vector.inputs],
                "outputs": [{**vars(row), "shape": list(row.shape)} for row in vector.outputs],
            }
            for vector in vectors.vectors
        ],
    }


def _without_none(rule: Rule) -> dict[str, Any]:
    return {key: value for key, value in vars(rule).items() if value is not None}


# -- golden vectors -------------------------------------------------------------------------------


def _golden(c: BundleContents, run: Run) -> tuple[Golden, bytes]:
    """Golden vectors and the stored outputs; none where an input cannot be generated (text)."""
    if any(info.dtype not in (*golden.INTEGERS, *golden.FLOATS, "bool") for info in c.inputs):
        return Golden(), b""
    names = [info.name for info in c.outputs if info.dtype in manifest.STORED]
    inputs, outputs = _finite_runs(c, run, names)
    if not inputs:
        return Golden(), b""
    rules = {name: _rule(c, name, [row[name] for row in outputs]) for name in names}
    if not rules:
        return Golden(), b""
    stored, sizes = bytearray(), _budget(rules, outputs)
    vectors = []
    for given, computed in zip(inputs, outputs, strict=True):
        rows = [_store(stored, name, rules[name], computed[name], sizes[name]) for name in names]
        vectors.append(Vector(tuple(given), tuple(rows)))
    file = GOLDEN_FILE if stored else None
    return Golden(file=file, vectors=tuple(vectors), rules=rules), bytes(stored)


def _golden_inputs(c: BundleContents, index: int) -> list[GoldenInput]:
    """Inputs of one vector. A seed is the vector's number and the input's, so that none repeats."""
    rows = []
    for place, info in enumerate(c.inputs):
        low, high = _drawn_range(info, c.input_ranges)
        shape = c.golden_shapes.get(info.name) or [
            size if isinstance(size, int) else 1 for size in info.shape
        ]
        if math.prod(shape) > limits.MAX_GOLDEN_ELEMENTS:
            raise EdgeqError(
                "bundle-too-large", f"input `{info.name}` has {math.prod(shape)} elements"
            )
        seed = index * limits.MAX_TENSORS + place
        rows.append(GoldenInput(info.name, info.dtype, tuple(shape), float(low), float(high), seed))
    return rows


def _drawn_range(
    info: TensorInfo, ranges: Mapping[str, tuple[float, float]]
) -> tuple[float, float]:
    """The calibrated range; of integers, as much of it as a golden input can hold."""
    if info.dtype == "bool":
        return 0.0, 1.0
    low, high = ranges[info.name]
    if info.dtype in golden.INTEGERS:
        low = max(math.ceil(low), -limits.MAX_INTEGER)
        high = max(low, min(math.floor(high), limits.MAX_INTEGER))
        high = min(high, low + limits.MAX_GOLDEN_STEPS - 1)
    return low, high


def _finite_runs(
    c: BundleContents, run: Run, names: Sequence[str]
) -> tuple[list[list[GoldenInput]], list[Mapping[str, Any]]]:
    """`VECTORS` inputs and what the artifact gives for them. Drawn inputs may lie where a model is
    not defined (the logarithm of a difference): those whose outputs are not finite are passed over,
    and after `ATTEMPTS` there are as many vectors as were found."""
    inputs: list[list[GoldenInput]] = []
    outputs: list[Mapping[str, Any]] = []
    for index in range(ATTEMPTS):
        rows = _golden_inputs(c, index)
        computed = run({row.name: row.array() for row in rows})
        if all(_is_finite(computed[name]) for name in names):
            inputs.append(rows)
            outputs.append(computed)
        if len(inputs) == VECTORS:
            break
    return inputs, outputs


def _is_finite(array: Array) -> bool:
    import numpy as np

    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def _rule(c: BundleContents, name: str, arrays: Sequence[Array]) -> Rule:
    exact = c.exact_outputs.get(name)
    if exact is not None:
        rule = Rule("codes", exact["dtype"], float(exact["scale"]), int(exact["zero_point"]))
        for array in arrays:
            _codes(rule, array, name)
        return rule
    if name in c.tolerances:
        return Rule("tolerance", absolute=float(c.tolerances[name]))
    if arrays[0].dtype.kind != "f":
        return Rule("equal")
    largest = max(float(abs(array).max(initial=0)) for array in arrays)
    layers, terms = c.float_depths.get(name, (FLOAT_LAYERS, FLOAT_TERMS))
    return Rule("tolerance", absolute=float_tolerance(largest, layers, terms))


def float_tolerance(largest: float, layers: int, terms: int) -> float:
    """How far two hosts' float32 results may lie apart, for outputs of at most `largest`.

    A sum of n terms in any order has an error of at most lambda * sqrt(n) * u relative to the sum
    of magnitudes, but with probability 2 * exp(-lambda**2 / 2) (Higham and Mary, SIAM J. Sci.
    Comput. 41, 2019, theorem 3.1); `layers` of them add up. u = 2**-24, lambda = 8.
    """
    return CONFIDENCE * max(layers, 1) * math.sqrt(max(terms, 1)) * UNIT_ROUNDOFF * largest


def _codes(rule: Rule, array: Array, name: str) -> Array:
    """The integers of a dequantized output; that they are such is our own invariant."""
    import numpy as np

    assert rule.scale is not None
    assert rule.zero_point is not None
    low = -128 if rule.dtype == "int8" else 0
    steps = np.rint(array.astype(np.float64) / rule.scale) + rule.zero_point
    codes: Array = np.clip(steps, low, low + 255).astype(rule.dtype)
    exact = array.dtype == np.float32 and np.array_equal(rule.expected(codes), array)
    assert exact, f"output `{name}` is not (code - {rule.zero_point}) * {rule.scale}"
    return codes


def _budget(rules: Mapping[str, Rule], outputs: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Bytes that each output of one vector may take: all of it, or an even share of 1 MB."""
    share = limits.MAX_GOLDEN_BYTES // (len(outputs) * len(rules))
    sizes = {
        name: max(row[name].size for row in outputs) * _item_size(rule, outputs[0][name])
        for name, rule in rules.items()
    }
    if sum(sizes.values()) * len(outputs) <= limits.MAX_GOLDEN_BYTES:
        return sizes
    return {name: min(size, share) for name, size in sizes.items()}


def _item_size(rule: Rule, array: Array) -> int:
    return manifest.item_size(rule.dtype or array.dtype.name)


def _store(stored: bytearray, name: str, rule: Rule, array: Array, size: int) -> GoldenOutput:
    """Append every stride-th element of `array`, at most `size` bytes, little-endian."""
    import numpy as np

    whole = _codes(rule, array, name) if rule.rule == "codes" else array
    item = _item_size(rule, array)
    stride = max(1, -(-whole.size * item // max(size, item)))
    little = np.dtype(whole.dtype).newbyteorder("<")
    data = whole.reshape(-1)[::stride].astype(little).tobytes()
    row = GoldenOutput(name, whole.dtype.name, tuple(array.shape), stride, len(stored), len(data))
    stored += data
    return row


# -- write ----------------------------------------------------------------------------------------


def write(
    files: Mapping[str, bytes],
    out: Path,
    *,
    packaging: str,
    force: bool,
    weights: Weights | None = None,
    check: Callable[[Path], None] | None = None,
) -> None:
    """Put the bundle at `out`: at every instant the old output, or the whole new one, is there.

    packaging: "zip" (one file) or "dir". An existing file is replaced; an existing folder is
    refused [output-exists] unless `force`, and even then only if it is empty or a bundle. Written
    beside as `.NAME.edgeq-partial`, synced, then renamed; a leftover of that name is removed first.
    A failing disk or a missing permission is [write-failed], with nothing lost. `weights` beside
    the artifact make it a folder, whatever `packaging` says; `check` reads what was written before
    it gets its name, and raises where it is not good.

    An existing folder, or a file where a folder goes, is swapped in one step by Linux's
    renameat2(RENAME_EXCHANGE). Where the system or the file system has none, the old output is
    first renamed to `.NAME.edgeq-old`: a build killed just then leaves it there, whole, and the
    next one puts it back.
    """
    out = Path(os.path.abspath(out))
    try:
        _write(
            files,
            out,
            "zip" if packaging == "zip" and weights is None else "dir",
            force,
            weights,
            check,
        )
    except OSError as error:
        raise EdgeqError(
            "write-failed", f"cannot write `{out.name}`: {error.strerror or error}"
        ) from error


def _write(
    files: Mapping[str, bytes],
    out: Path,
    packaging: str,
    force: bool,
    weights: Weights | None,
    check: Callable[[Path], None] | None,
) -> None:
    partial = out.parent / f".{out.name}.edgeq-partial"
    old = out.parent / f".{out.name}.edgeq-old"
    if os.path.lexists(old) and not os.path.lexists(out):
        old.rename(out)
    require_replaceable(out, force=force)
    _remove(partial)
    _remove(old)
    with _removing(partial):
        if packaging == "dir":
            _write_folder(files, weights, partial)
        else:
            _write_file(partial, archive.zip_parts(files))
        if check is not None:
            check(partial)
        _put(partial, out, old)
        _sync_folder(out.parent)


def require_replaceable(out: Path, *, force: bool) -> None:
    """Raise [output-exists] where `write` would: a folder is replaced on request only, and never
    one that holds something else; a device or a pipe never, for a rename would take its place."""
    if out.exists() and not out.is_file() and not out.is_dir():
        raise EdgeqError(
            "output-exists",
            f"`{out.name}` is a device or a pipe, and a bundle would take its place",
            "write elsewhere: `-o other.edgeq`",
        )
    if not out.is_dir():
        return
    if not force:
        raise EdgeqError(
            "output-exists",
            f"the folder `{out.name}` exists",
            "write elsewhere: `-o other.edgeq`",
            "or replace it: `--force`",
        )
    rows = list(os.scandir(out))
    plain = all(row.is_file(follow_symlinks=False) for row in rows)
    if rows and not (plain and any(row.name == archive.MANIFEST for row in rows)):
        raise EdgeqError(
            "output-exists",
            f"the folder `{out.name}` is not a bundle and is not replaced",
            "write elsewhere: `-o other.edgeq`",
        )


def _write_folder(files: Mapping[str, bytes], weights: Weights | None, folder: Path) -> None:
    folder.mkdir()
    for name, data in files.items():
        _write_file(folder / name, (data,))
    if weights is not None:
        _write_file(folder / WEIGHTS_FILE, weights.pieces())
    _sync_folder(folder)


def _write_file(path: Path, parts: Iterable[bytes]) -> None:
    """A new file; a link or file that already has this name is never written through."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags, 0o666), "wb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())


def _put(partial: Path, out: Path, old: Path) -> None:
    """Give the finished `partial` its name. Afterwards `partial` holds what was there, if any."""
    try:
        status = out.lstat()
    except FileNotFoundError:
        partial.rename(out)
        return
    if not stat.S_ISDIR(status.st_mode) and not partial.is_dir():
        partial.replace(out)
    elif not _exchange(partial, out):
        out.rename(old)
        partial.rename(out)
        old.rename(partial)


def _exchange(one: Path, two: Path) -> bool:
    """Swap two names in one step (renameat2, Linux 3.15); False where that does not exist."""
    at_fdcwd, rename_exchange = -100, 2
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, TypeError):
        return False
    if renameat2(at_fdcwd, os.fsencode(one), at_fdcwd, os.fsencode(two), rename_exchange) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number))


def _sync_folder(folder: Path) -> None:
    """Names reach the disk too, where folders can be opened (not on Windows)."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _removing(partial: Path) -> Iterator[None]:
    """Whatever happens, try to leave nothing at `partial`; the next build tries again."""
    try:
        yield
    finally:
        with suppress(OSError):
            _remove(partial)


def _remove(path: Path) -> None:
    """Remove a file, a link (not what it points to) or a folder, if there is one."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if stat.S_ISDIR(status.st_mode):
        shutil.rmtree(path)
    else:
        path.unlink()
