"""Feed mutated TFLite files to the verifier, the reader and the engine; JSON lines on stdout.

Run as a script: tfl_worker.py SEED START STEP COUNT. A row before each file; another when edgeq
has passed it on to the engine; one after. The parent watches: a worker that dies between the second
and the third died in the engine, which is what a child process is for; anywhere else is a fault of
ours. By hand: `tfl_worker.py SEED INDEX` does one file and shows the trace; `seeds`, `digest`.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfl_mutate import mutant
from tfl_seeds import SEEDS

MEMORY_BYTES = 6 * 10**9
ENGINE_LIMIT_S = 2.0  # a run takes milliseconds; the rest are loops without an end
PROBE_LIMIT_S = 5.0


def peak_kb() -> int:
    """The most this process held."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0])


def verify(data: bytes) -> str:
    """What our verifier says: a slug, or "verified"."""
    from edgeq_runtime import EdgeqError, tflite

    try:
        tflite.parse(data)
    except EdgeqError as error:
        return _fit(error)
    return "verified"


def read(path: Path) -> str:
    """What the reader says of a verified file: a slug, or "reads"."""
    from edgeq_converters.read.tflite import read as reader
    from edgeq_runtime import EdgeqError

    try:
        reader(path)
    except EdgeqError as error:
        return _fit(error)
    return "reads"


def _fit(error: Any) -> str:
    line = f"{error}"
    good = "\n" not in line and len(line) < 2000
    return str(error.slug) if good else f"bad message: {line[:80]!r}"


def engine(data: bytes) -> str:
    """Open and run it here on zeros, as the child of a guarded load does."""
    from edgeq_runtime import EdgeqError, engines, isolate

    try:
        session = engines.get("litert").open_session(data, threads=1)
        feeds = isolate.zeros(session.inputs)
        if sum(array.nbytes for array in feeds.values()) > 10**8:
            return "engine-too-large"
        session.run(feeds)
    except EdgeqError as error:
        return _fit(error)
    return "runs"


def guarded(seed: int, index: int) -> str:
    """The whole guarded load, in a child of its own: for the files that killed a worker."""
    from edgeq_runtime import EdgeqError, isolate

    try:
        isolate.probe(mutant(seed, index)[1], engine="litert", timeout_s=PROBE_LIMIT_S)
    except EdgeqError as error:
        return _fit(error)
    return "runs"


def many(seed: int, start: int, step: int, count: int, folder: Path) -> None:
    say = _speaker()
    path = folder / "m.tflite"
    path.write_bytes(SEEDS[0]().bytes())
    read(path)
    engine(path.read_bytes())  # imports, before the first clock starts
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for index in range(start, count, step):
        kind, data = mutant(seed, index)
        row: dict[str, Any] = {"index": index, "kind": kind}
        say(row)
        began = time.process_time()
        try:
            row["verifier"] = verify(data)
            if row["verifier"] == "verified":
                path.write_bytes(data)
                row["reader"] = read(path)
        except Exception as failure:  # noqa: BLE001 - what the fuzzer is looking for
            row["exception"] = f"{type(failure).__name__}: {failure}"[:300]
        row["cpu_s"] = round(time.process_time() - began, 3)
        row["peak_kb"] = peak_kb()
        if row.get("verifier") == "verified" and "exception" not in row:
            say({**row, "stage": "engine"})
            signal.setitimer(signal.ITIMER_REAL, ENGINE_LIMIT_S)  # the default: it ends the process
            try:
                row["engine"] = engine(data)
            except Exception as failure:  # noqa: BLE001 - as above
                row["exception"] = f"{type(failure).__name__}: {failure}"[:300]
            signal.setitimer(signal.ITIMER_REAL, 0)
        say({**row, "done": True})


def _speaker() -> Callable[[dict[str, Any]], None]:
    """A stdout of our own: an engine may print on the other."""
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    def say(row: dict[str, Any]) -> None:
        stream.write(json.dumps(row) + "\n")
        stream.flush()

    return say


def by_hand(arguments: list[str], folder: Path) -> None:
    if arguments == ["seeds"]:
        for make in SEEDS:
            data = make().bytes()
            (folder / "m.tflite").write_bytes(data)
            print(make.__name__, verify(data), engine(data), sep="\t")
    elif arguments[0] == "digest":
        digest = hashlib.sha256()
        for index in range(int(arguments[2])):
            digest.update(mutant(int(arguments[1]), index)[1])
        print(digest.hexdigest())
    elif arguments[0] == "guarded":
        print(guarded(int(arguments[1]), int(arguments[2])))
    else:
        data = mutant(int(arguments[0]), int(arguments[1]))[1]
        (folder / "m.tflite").write_bytes(data)
        print(verify(data), flush=True)
        print(read(folder / "m.tflite"), flush=True)
        print(engine(data))


def main(arguments: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        if len(arguments) == 4:
            many(*map(int, arguments), folder=Path(name))  # type: ignore[arg-type]
        else:
            by_hand(arguments, Path(name))


if __name__ == "__main__":
    main(sys.argv[1:])
