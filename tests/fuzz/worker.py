"""Feed mutants to the reader and the passes; one JSON line before and after each file.

Run as a script: worker.py SEED START STEP COUNT. The parent watches: a worker that dies or falls
silent did so on the last file it named. `worker.py SEED INDEX` does one file and shows the trace.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType

from mutate import mutant, parses


def draft_module() -> ModuleType | None:
    """The quantizer's first stage, which must take every graph that reads."""
    try:
        return importlib.import_module("edgeq.quant.draft")
    except ModuleNotFoundError:
        return None


def prepare(folder: Path) -> None:
    """What hostile external data may point at."""
    (folder / "w.bin").write_bytes(bytes(64))
    (folder / "link.bin").symlink_to("/etc/hostname")
    os.mkfifo(folder / "pipe")


def one(path: Path, data: bytes) -> str:
    """The slug of the refusal, or "reads"."""
    from edgeq.errors import EdgeqError
    from edgeq.passes import run_all
    from edgeq_converters.read.onnx import read

    path.write_bytes(data)
    try:
        graph, _ = run_all(read(path).graph)
        draft = draft_module()
        if draft is not None:
            draft.draft(graph)
    except EdgeqError as error:
        line = f"{error}"
        return (
            error.slug if "\n" not in line and len(line) < 2000 else f"bad message: {line[:80]!r}"
        )
    return "reads"


def main(arguments: list[str]) -> None:
    seed, start, *rest = (int(argument) for argument in arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        if not rest:
            print(one(folder / "m.onnx", mutant(seed, start)[1]))
            return
        step, count = rest
        one(folder / "m.onnx", b"")  # imports, before the first clock starts
        for index in range(start, count, step):
            kind, data = mutant(seed, index)
            row = {"index": index, "kind": kind, "parses": parses(data), "size": len(data)}
            print(json.dumps(row), flush=True)
            began = time.monotonic()
            try:
                row["outcome"] = one(folder / "m.onnx", data)
            except Exception as failure:  # noqa: BLE001 - what the fuzzer is looking for
                row["outcome"] = f"exception: {type(failure).__name__}: {failure}"[:300]
            row["seconds"] = round(time.monotonic() - began, 3)
            row["peak_kb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
