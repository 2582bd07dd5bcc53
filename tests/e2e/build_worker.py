"""Build mutated models that read well, and tell how each build ended.

A script, run by `test_build_fuzz.py` with `tests/fuzz` on its path: `build_worker.py FOLDER START
STEP COUNT` takes every STEP-th mutant from START on until COUNT of them were read. One JSON line
before a build (so that a crash has a name) and one after it.
"""

import json
import os
import sys
import time
from pathlib import Path

from mutate import mutant  # tests/fuzz/mutate.py

import edgeq
from edgeq_converters.read.onnx import read

SEED = 3


def _say(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


def _cpu_s() -> float:
    """User and system time of this process and its finished children."""
    return sum(os.times()[:4])


def _build(model: Path, precision: str, folder: Path) -> str:
    settings = edgeq.BuildSettings(synthetic_data=precision == "int8", samples=4)
    out = folder / f"{precision}.edgeq"
    try:
        built = edgeq.build(
            model, target="rpi5", precision=precision, out=out, settings=settings
        ).outcome
    except edgeq.EdgeqError as error:
        assert not out.exists(), "a refused build leaves nothing"
        return error.slug
    out.unlink()
    return built


def main() -> None:
    folder, start, step, count = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    model, index = folder / "model.onnx", start
    while count:
        kind, content = mutant(SEED, index)
        model.write_bytes(content)
        try:
            read(model)
        except edgeq.EdgeqError:
            index += step
            continue
        for precision in ("int8", "fp32"):
            _say(index=index, kind=kind, precision=precision)
            began, used = time.monotonic(), _cpu_s()
            ended = _build(model, precision, folder)
            wall_s = time.monotonic() - began
            _say(ended=ended, wall_s=round(wall_s, 2), cpu_s=round(_cpu_s() - used, 2))
        index, count = index + step, count - 1


if __name__ == "__main__":
    main()
