"""The emulated side: open one artifact with its engine, run every sample, write the outputs down.

A program of its own, run as `python3 guest.py FOLDER` by the Python of the root file system, with
numpy, the engines' wheels and `edgeq_runtime` on its path. FOLDER holds `job.json`, the artifact
and `samples.npz` (keys "INDEX/NAME"); the answer is `outputs.npz`, keyed alike, then `answer.json`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

import edgeq_runtime
from edgeq_runtime import engines
from edgeq_runtime.errors import EdgeqError


def main(folder: Path) -> None:
    """Answer the job in `folder`; what the user can act on is an answer too."""
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    try:
        answer = _run(folder, job)
    except EdgeqError as error:
        answer = {"slug": error.slug, "message": error.message, "hints": list(error.hints)}
    (folder / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


def _run(folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    session = _open(folder / job["artifact"], job)
    outputs: dict[str, Any] = {}
    with np.load(folder / "samples.npz") as samples:
        names: list[list[str]] = [[] for _ in range(job["count"])]
        for key in samples.files:
            at, _, name = key.partition("/")
            names[int(at)].append(name)
        for index, row in enumerate(names):
            feeds = {name: samples[f"{index}/{name}"] for name in row}
            for name, array in session.run(feeds).items():
                outputs[f"{index}/{name}"] = array
    np.savez(folder / "outputs.npz", allow_pickle=False, **outputs)
    return {"engine": session.engine, "version": session.version}


def _open(artifact: Path, job: dict[str, Any]) -> Any:
    """The session of a bundle or of a plain file. Nothing is isolated: this process is a child."""
    if job["bundle"]:
        runner = edgeq_runtime.load(artifact, threads=job["threads"], isolate=False)
        return runner.session
    data = artifact.read_bytes()
    engine = engines.get(engines.for_model(data))
    return engine.open_session(data, threads=job["threads"], **job["options"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
