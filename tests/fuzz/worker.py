"""Feed mutants to the reader and the passes; one JSON line before and after each file.

Run as a script: worker.py SEED START STEP COUNT PROBES. The parent watches: a worker that dies or
falls silent did so on the last file it named. The first PROBES files that read also go through the
writer and the engine's child process. By hand: `worker.py SEED INDEX` does one file and shows the
trace; `worker.py seeds` and `worker.py digest SEED COUNT` are for the tests.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

from mutate import mutant, parses
from seeds import SEEDS

PROBE_LIMIT_S = 20.0


def peak_kb() -> int:
    """The most this process held; `ru_maxrss` survives exec and would be the parent's."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0])


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


def one(path: Path, data: bytes, probe: bool = False) -> str:
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
        if probe:
            to_engine(graph)
    except EdgeqError as error:
        line = f"{error}"
        return (
            error.slug if "\n" not in line and len(line) < 2000 else f"bad message: {line[:80]!r}"
        )
    return "reads"


def to_engine(graph: Any) -> None:
    """Write it as float and run it once in a child: what a build does next."""
    from edgeq.errors import EdgeqError
    from edgeq_converters.write.onnx import write
    from edgeq_runtime.isolate import probe

    try:
        probe(write(graph, None), timeout_s=PROBE_LIMIT_S)
    except EdgeqError as error:
        if not error.slug.startswith("engine-"):
            raise


def by_hand(arguments: list[str], folder: Path) -> None:
    if arguments == ["seeds"]:
        for make in SEEDS:
            print(make.__name__, one(folder / "m.onnx", make().SerializeToString()), sep="\t")
    elif arguments[0] == "digest":
        digest = hashlib.sha256()
        for index in range(int(arguments[2])):
            digest.update(mutant(int(arguments[1]), index)[1])
        print(digest.hexdigest())
    else:
        print(one(folder / "m.onnx", mutant(int(arguments[0]), int(arguments[1]))[1]))


def many(seed: int, start: int, step: int, count: int, probes: int, folder: Path) -> None:
    one(folder / "m.onnx", b"")  # imports, before the first clock starts
    for index in range(start, count, step):
        kind, data = mutant(seed, index)
        row = {"index": index, "kind": kind, "parses": parses(data), "size": len(data)}
        print(json.dumps(row), flush=True)
        began = time.process_time()
        try:
            row["outcome"] = one(folder / "m.onnx", data, probe=probes > 0)
        except Exception as failure:  # noqa: BLE001 - what the fuzzer is looking for
            row["outcome"] = f"exception: {type(failure).__name__}: {failure}"[:300]
        probes -= row["outcome"] == "reads"
        row["cpu_s"] = round(time.process_time() - began, 3)
        row["peak_kb"] = peak_kb()
        print(json.dumps(row), flush=True)


def main(arguments: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name))
        if len(arguments) == 5:
            many(*map(int, arguments), folder=Path(name))  # type: ignore[arg-type]
        else:
            by_hand(arguments, Path(name))


if __name__ == "__main__":
    main(sys.argv[1:])
