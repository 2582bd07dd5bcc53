"""Every file of `shared/data/robust` through four commands, against the committed table.

`robust.tsv` holds, per file and command, the slug of the error or "builds" / "reads". Rewrite it
after a change that is meant: `python tests/e2e/test_robust.py ../shared/data/robust`.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest

TABLE = Path(__file__).parent / "robust.tsv"
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "int8": ("build", "--target", "rpi5", "--int8", "--synthetic-data", "-o", "out/model.edgeq"),
    "fp32": ("build", "--target", "rpi5", "--fp32", "-o", "out/model.edgeq"),
    "tflite": (
        *("build", "--target", "rpi5", "--fp32", "--format", "tflite"),
        *("-o", "out/model.edgeq"),
    ),
    "inspect": ("inspect",),
}
CPU_LIMIT_S = 10.0
SEARCHED = ("fp16_weights_yolox_nano.tflite", "int8")
"""A whole detector, whose int8 plan is searched for as any user's is: for minutes."""
SEARCHED_LIMIT_S = 240.0
SLUG = re.compile(r"^error: .+ \[([a-z0-9-]+)\]$")


@dataclass(frozen=True)
class Finished:
    """How a command ended; `cpu_s` is user and system time, its children included."""

    code: int
    stdout: str
    stderr: str
    cpu_s: float
    written: tuple[str, ...]

    def outcome(self, command: str) -> str:
        """A word for the table; "?" where the output is no proper ending of an edgeq command."""
        if self.code == 0:
            return "reads" if command == "inspect" else "builds"
        errors = [line for line in self.stderr.splitlines() if line.startswith("error:")]
        found = SLUG.match(errors[0]) if len(errors) == 1 else None
        return found[1] if found and self.code == 2 else f"? exit {self.code}"


def run(command: str, model: Path, folder: Path) -> Finished:
    """Run one command on `model` as a user would, in `folder`, with an empty `out/` below it."""
    (folder / "out").mkdir()
    verb, *flags = COMMANDS[command]
    out, err = folder / "stdout", folder / "stderr"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(row for row in sys.path if row)}
    with out.open("wb") as stdout, err.open("wb") as stderr:
        child = subprocess.Popen(
            [sys.executable, "-m", "edgeq.cli", verb, str(model), *flags],
            cwd=folder,
            stdout=stdout,
            stderr=stderr,
            env=environment,
        )
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    written = tuple(sorted(path.name for path in (folder / "out").rglob("*")))
    texts = [path.read_text(encoding="utf-8") for path in (out, err)]
    return Finished(child.returncode, *texts, usage.ru_utime + usage.ru_stime, written)


def table() -> dict[str, dict[str, str]]:
    """file -> command -> outcome, as committed."""
    head, *rows = TABLE.read_text(encoding="utf-8").splitlines()
    names = head.split("\t")
    split = [dict(zip(names, row.split("\t"), strict=True)) for row in rows]
    return {row.pop("file"): row for row in split}


@pytest.mark.shared
def test_the_table_has_every_file(shared: Path) -> None:
    files = {path.name for path in (shared / "data" / "robust").iterdir() if path.suffix != ".tsv"}
    assert set(table()) == files
    assert len(files) == 34


def test_synthetic_data_is_data() -> None:
    assert not [file for file, row in table().items() if "needs-data" in row.values()]


@pytest.mark.shared
@pytest.mark.parametrize(
    ("file", "command"),
    [
        pytest.param(*row, marks=[pytest.mark.slow] if row == SEARCHED else [])
        for row in product(table(), COMMANDS)
    ],
)
def test_a_robust_file_builds_or_is_refused_by_name(
    shared: Path, tmp_path: Path, file: str, command: str
) -> None:
    done = run(command, shared / "data" / "robust" / file, tmp_path)
    told = f"exit {done.code}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stdout + done.stderr, told
    assert done.outcome(command) == table()[file][command], told
    limit = SEARCHED_LIMIT_S if (file, command) == SEARCHED else CPU_LIMIT_S
    assert done.cpu_s < limit, f"{done.cpu_s:.1f} s of CPU"
    wanted = ("model.edgeq",) if done.outcome(command) == "builds" else ()
    assert done.written == wanted, told


def main() -> None:
    folder = Path(sys.argv[1])
    lines = ["\t".join(("file", *COMMANDS))]
    for file in sorted(path for path in folder.iterdir() if path.suffix != ".tsv"):
        row = [file.name]
        for command in COMMANDS:
            with tempfile.TemporaryDirectory() as place:
                done = run(command, file.resolve(), Path(place))
            row.append(done.outcome(command))
            print(f"{file.name} {command}: {row[-1]} ({done.cpu_s:.1f} s)\n{done.stderr}")
        lines.append("\t".join(row))
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
