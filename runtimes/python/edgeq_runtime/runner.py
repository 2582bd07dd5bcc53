"""Load a bundle, run it, test it against its golden vectors."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from types import ModuleType, TracebackType
from typing import Any

from edgeq_runtime import cpu as cpus
from edgeq_runtime import engines, golden, images, reader
from edgeq_runtime.canonical import damaged
from edgeq_runtime.cpu import Cpu
from edgeq_runtime.errors import EdgeqError
from edgeq_runtime.golden import OutputCheck, Verification
from edgeq_runtime.isolate import DEFAULT_TIMEOUT_S, probe
from edgeq_runtime.manifest import Manifest
from edgeq_runtime.reader import Bundle, Source
from edgeq_runtime.tensors import TensorInfo, describe

logger = logging.getLogger("edgeq_runtime")

SATURATES = (
    "the int8 kernels of this cpu saturate on this bundle's weights: `run` gives other numbers "
    "than were measured; exact ones, slower: load(bundle, exact=True)"
)


class Runner:
    """A loaded bundle. `inputs` and `outputs` are the model's; `warnings` were logged at loading;
    `on_target` says whether this processor is what the bundle was built for, `computes` in what it
    computes floats where processors differ ("float16", "float32"), else None."""

    def __init__(
        self,
        bundle: Bundle,
        session: Any,
        *,
        source: Source,
        engine: ModuleType,
        host: Cpu,
        on_target: bool,
        warnings: tuple[str, ...],
    ) -> None:
        self.manifest: Manifest = bundle.manifest
        self.inputs: tuple[TensorInfo, ...] = bundle.manifest.inputs
        self.outputs: tuple[TensorInfo, ...] = bundle.manifest.outputs
        self.on_target = on_target
        self.computes: str | None = bundle.manifest.computes(host)
        self.warnings = warnings
        self.session = session
        self._golden = bundle.golden  # small; the artifact is not kept beside the session
        self._source = source
        self._engine = engine
        self._host = host

    def run(self, x: Any) -> dict[str, Any]:
        """Run once: `x` is one array, or name -> array; returns output name -> array, in order.

        Raises EdgeqError("bad-input") naming input, got and wanted.
        """
        result: dict[str, Any] = self.session.run(x if isinstance(x, dict) else self._named(x))
        return result

    def run_image(self, image: Any) -> dict[str, Any]:
        """Preprocess an image as the manifest says, and run it as a batch of one; an int8 input is
        given its codes.

        `image` is a uint8 array [H, W, C] (RGB, or grey with C of 1), or the path of an image file
        (needs the extra [images]; FORMAT.md 7 says how it is decoded). Only for a model with one
        input that has an `[input.NAME]` table.
        """
        name = self.inputs[0].name
        spec = self.manifest.input_specs.get(name)
        if spec is None or len(self.inputs) != 1:
            raise EdgeqError(
                "bad-input", f"the bundle does not say how an image becomes input `{name}`"
            )
        if isinstance(image, (str, os.PathLike)):
            image = images.read(image, images.channels_of(self.inputs[0].shape, spec.layout))
        elif not hasattr(image, "ndim"):
            raise EdgeqError(
                "bad-input", f"image: got {type(image).__name__}, wanted a path or a uint8 array"
            )
        return self.run({name: self.inputs[0].codes(spec.apply(image)[None])})

    def self_test(self) -> Verification:
        """Run the golden vectors with exact kernels on this host and compare the outputs.

        A session that may saturate, or compute in float16, is not used: the bundle is read again
        and opened exactly.
        """
        vectors = self.manifest.golden
        golden.require_vectors(vectors)
        differs = bool(self.manifest.compute) or self._engine.saturates()
        if self.session.mode == "default" and differs:
            _check_exact(self.manifest, self._engine)
            artifact = reader.read(self._source).artifact
            session = self._engine.open_session(artifact, exact=True)
            try:
                return self._verification(session, golden.compare(session, vectors, self._golden))
            finally:
                session.close()
        return self._verification(self.session, golden.compare(self.session, vectors, self._golden))

    def _verification(self, session: Any, checks: tuple[OutputCheck, ...]) -> Verification:
        return Verification(
            passed=all(check.passed for check in checks),
            vectors=len(self.manifest.golden.vectors),
            outputs=checks,
            target=self.manifest.target,
            on_target=self.on_target,
            host=self._host.describe(),
            engine=session.engine,
            engine_version=session.version,
            mode=session.mode,
            digest=self.manifest.digest,
            warnings=self.warnings,
        )

    def close(self) -> None:
        """Free the model."""
        self.session.close()

    def __enter__(self) -> Runner:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _named(self, x: Any) -> dict[str, Any]:
        if isinstance(x, Mapping):
            return dict(x)
        if len(self.inputs) == 1:
            return {self.inputs[0].name: x}
        wanted = ", ".join(f"`{info.name}`" for info in self.inputs)
        raise EdgeqError(
            "bad-input", f"got one array, wanted {len(self.inputs)} by name: {{{wanted}}}"
        )


def load(
    bundle: Source,
    *,
    engine: str = "auto",
    threads: int | None = None,
    isolate: bool = True,
    exact: bool = False,
    cpu: Cpu | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
) -> Runner:
    """Open `bundle` (a path, or name -> contents) to run it.

    isolate: load it first in a child process, so that a crash is an error; costs one more load.
    engine: "auto" is the bundle's own, or tflite-runtime where LiteRT is not installed.
    exact: the same integers on any host, slower where its kernels saturate; then a missing CPU
    feature is a warning, as on another architecture, which is always exact. cpu: this processor.
    """
    opened = reader.read(bundle)
    manifest = opened.manifest
    host = cpu if cpu is not None else cpus.host()
    on_target, warnings = cpus.check(manifest.cpu, host, exact=exact)
    name = _chosen(manifest) if engine == "auto" else engine
    _check_platform(manifest, host)
    # before the import, which is where a wrong build dies
    _check_version(manifest, name, engines.installed_version(name), host)
    if isolate:
        probe(opened.artifact, engine=name, timeout_s=timeout_s)
    module = _import(manifest, name)
    _check_version(manifest, name, module.version(), host)  # of a distribution under another name
    exact = exact or host.architecture != manifest.cpu.architecture
    if exact:
        _check_exact(manifest, module)
    warnings += _engine_warnings(manifest, name, module, exact)
    session = module.open_session(opened.artifact, threads=threads, exact=exact)
    _check_tensors(manifest, session)
    for warning in warnings:
        logger.warning("%s", warning)
    return Runner(
        opened,
        session,
        source=bundle,
        engine=module,
        host=host,
        on_target=on_target,
        warnings=warnings,
    )


def verify(
    bundle: Source,
    *,
    engine: str = "auto",
    threads: int | None = None,
    isolate: bool = True,
    cpu: Cpu | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
) -> Verification:
    """Check every digest, then run the golden vectors with exact kernels on this host."""
    runner = load(
        bundle,
        engine=engine,
        threads=threads,
        isolate=isolate,
        exact=True,
        cpu=cpu,
        timeout_s=timeout_s,
    )
    with runner:
        return runner.self_test()


def _chosen(manifest: Manifest) -> str:
    """The bundle's own engine; where it is not installed, what stands in for it, which refuses by
    itself what it does not compute rightly."""
    name = manifest.engine.name
    fallback = engines.FALLBACKS.get(name)
    if fallback is None or engines.installed_version(name) is not None:
        return name
    return name if engines.installed_version(fallback) is None else fallback


def _check_platform(manifest: Manifest, host: Cpu) -> None:
    """An .ort file holds what its platform's kernels take: elsewhere it may run, or not, or run
    wrong."""
    made = manifest.made_for
    if made is not None and host.architecture != made.platform:
        raise EdgeqError(
            "wrong-platform",
            f"`{manifest.artifact}` is optimized for {made.platform}, and this cpu is "
            f"{host.architecture or 'unknown'}",
            "build for this platform, or in the form that runs anywhere: `--format onnx`",
        )


def _check_exact(manifest: Manifest, module: ModuleType) -> None:
    """Exact kernels are chosen while a model is optimized, which an .ort file has behind it."""
    ready = manifest.made_for is not None
    if ready and manifest.exact_kernels == "needed" and module.saturates():
        raise EdgeqError(
            "not-exact",
            f"`{manifest.artifact}` cannot be run exactly here: the int8 kernels of this cpu "
            "saturate on its weights",
            "build it in the form that can: `--format onnx`",
        )


def _import(manifest: Manifest, name: str) -> ModuleType:
    module = engines.get(name)
    if manifest.artifact_format not in module.FORMATS:
        raise EdgeqError(
            "engine-refused",
            f"engine `{name}` does not read `{manifest.artifact_format}` files",
            f"use the one it was measured with: load(bundle, engine={manifest.engine.name!r})",
        )
    return module


def _check_version(manifest: Manifest, name: str, version: str | None, host: Cpu) -> None:
    """[engine-version] for what is too old or known to be broken on this architecture."""
    if version is None or name != manifest.engine.name:
        return
    install = f'pip install "{name}=={manifest.engine.measured}"'
    if parts(version) < parts(manifest.engine.minimum):
        raise EdgeqError(
            "engine-version",
            f"{name} {version} is older than {manifest.engine.minimum}, which this bundle needs",
            install,
        )
    effect = _known_effect(manifest, name, version, host)
    if effect is not None:
        raise EdgeqError(
            "engine-version", f"{name} {version} is known to be bad: {effect}", install
        )


def _known_effect(manifest: Manifest, name: str, version: str, host: Cpu) -> str | None:
    """What is known to happen with this version: the runtime's table, then the target's own."""
    for engine, bad, architecture, without, effect in engines.KNOWN_BAD:
        here = architecture == host.architecture and host.features and without not in host.features
        if engine == name and parts(bad) == parts(version) and here:
            return effect
    if host.architecture != manifest.cpu.architecture:
        return None
    known = manifest.engine.known_bad
    return next((known[row] for row in known if parts(row) == parts(version)), None)


def _engine_warnings(
    manifest: Manifest, name: str, module: ModuleType, exact: bool
) -> tuple[str, ...]:
    warnings: list[str] = []
    needs, version = manifest.engine, module.version()
    if name != needs.name:
        warnings.append(f"measured with {needs.name} {needs.measured}, runs on {name} {version}")
    elif parts(version)[:2] != parts(needs.measured)[:2]:
        warnings.append(f"measured with {name} {needs.measured}, this is {version}")
    if manifest.exact_kernels == "needed" and not exact and module.saturates():
        warnings.append(SATURATES)
    return tuple(warnings)


def parts(version: str) -> tuple[int, int, int]:
    """`1.21.0` as (1, 21, 0); what follows the numbers (rc1, +cpu) is left out."""
    plain = re.split(r"[a-zA-Z+]", version)[0]
    numbers = [int(row) for row in re.findall(r"[0-9]{1,9}", plain)[:3]]
    major, minor, patch = (numbers + [0, 0, 0])[:3]
    return (major, minor, patch)


def _check_tensors(manifest: Manifest, session: Any) -> None:
    """The artifact has the inputs and outputs that the manifest promises."""
    for what, said, found in (
        ("inputs", manifest.inputs, session.inputs),
        ("outputs", manifest.outputs, session.outputs),
    ):
        if [(row.name, row.dtype) for row in said] != [(row.name, row.dtype) for row in found]:
            rows = ", ".join(f"`{row.name}` {describe(row.dtype, row.shape)}" for row in found)
            raise damaged(f"{what} of the artifact are not those of the manifest: {rows}")
