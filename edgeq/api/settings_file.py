"""`init`: write a commented edgeq.toml for one model."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from edgeq.api import models
from edgeq.errors import EdgeqError
from edgeq.report.results import Initialized
from edgeq.report.template import Facts, guessed_layout, guessed_shape, settings_file


def init(
    model: str | Path, *, target: str | None = None, out: str | Path, force: bool = False
) -> Initialized:
    """Read `model` and write the settings file `out` for it, whole or not at all.

    `target` None is this machine's. Raises EdgeqError: what reading raises, [unknown-target],
    [no-such-folder], [output-exists] for a file that is there without `force`, [write-failed].
    """
    from edgeq.quant import rules

    path, file = Path(model), Path(out)
    _require_writable(file, force)
    name, target_is, notes = _target(target)
    read = models.read_model(path, {})
    heavy = [str(node.name) for node in read.graph.nodes() if node.op_type in rules.WEIGHTED]
    facts = Facts(
        name=models.text_name(path),
        model=_from(file, path),
        target=name,
        target_is=target_is,
        inputs=read.graph.inputs,
        outputs=read.graph.outputs,
        size_bytes=read.size_bytes,
        layer=heavy[-1] if heavy else "head/*",
    )
    _write(file, settings_file(facts).encode("utf-8"), force)
    guesses = (f"layout of `{i.name}`" for i in read.graph.inputs if guessed_layout(i))
    shapes = (f"shape of `{i.name}`" for i in read.graph.inputs if guessed_shape(i))
    return Initialized(
        file=str(file),
        model=facts.model,
        target=name,
        guessed=(*guesses, *shapes),
        notes=(*read.notes, *notes),
    )


def _target(name: str | None) -> tuple[str | None, str, tuple[str, ...]]:
    """The target, where it comes from, and what to tell of it."""
    from edgeq import targets
    from edgeq_runtime import cpu

    if name is not None:
        return targets.load(name).name, "as given; `edgeq targets` lists them all", ()
    try:
        found = targets.for_host(cpu.host())
    except EdgeqError as error:
        return None, "`edgeq targets` lists them all", (f"{error.message}: `target` is left off",)
    return found, "this machine; `edgeq targets` lists the others", ()


def _from(file: Path, model: Path) -> str:
    """The model's path as the settings file has to write it: relative to its own folder."""
    written = str(model) if model.is_absolute() else os.path.relpath(model, file.parent)
    try:
        written.encode("utf-8")
    except UnicodeEncodeError:
        raise EdgeqError(
            "config", f"the path {written!a} is not UTF-8, and TOML holds nothing else"
        ) from None
    return written


def _require_writable(file: Path, force: bool) -> None:
    if not file.parent.is_dir():
        raise EdgeqError("no-such-folder", f"there is no folder `{file.parent}` to write into")
    if not os.path.lexists(file):
        return
    if not file.is_file():
        raise EdgeqError("output-exists", f"`{file}` is no file, and is not replaced")
    if not force:
        raise EdgeqError(
            "output-exists",
            f"`{file}` exists",
            "write elsewhere: `-o other.toml`",
            "or replace it: `--force`",
        )


def _write(file: Path, data: bytes, force: bool) -> None:
    """Beside it under another name, then renamed: never half a file, never an old one lost."""
    partial = file.with_name(f".{file.name}.edgeq-partial")
    try:
        partial.unlink(missing_ok=True)
        try:
            with partial.open("xb") as stream:
                stream.write(data)
            _require_writable(file, force)  # somebody may have written it while the model was read
            partial.replace(file)
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise EdgeqError(
            "write-failed", f"cannot write `{file}`: {error.strerror or error}"
        ) from error
