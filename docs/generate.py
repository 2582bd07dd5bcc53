"""Write the pages of this folder that come from edgeq itself: errors, targets, commands, operators.

python docs/generate.py            # or `make docs`
python docs/generate.py --check    # exit 1 and name the pages that are out of date
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from edgeq import targets
from edgeq.errors import SLUGS
from edgeq.quant.kernels import LITERT, ONNXRUNTIME, Kernels
from edgeq.quant.rules import CLAMPS
from edgeq_converters.read.tflite import HANDLERS as READERS
from edgeq_converters.write.tfl import families

HERE = Path(__file__).resolve().parent
NOTICE = "<!-- Written by docs/generate.py; `make docs` writes it anew. -->"
COMMANDS = (
    *("build", "run", "eval", "compare", "inspect", "verify"),
    *("init", "targets", "doctor", "explain"),
)
GONE = {"Identity", "Dropout", "Upsample"}
"""Operators that no optimized graph has."""


def shown(*arguments: str) -> str:
    """What `edgeq ...` prints on an 80 column terminal, without the `next:` line."""
    done = subprocess.run(
        [sys.executable, "-m", "edgeq.cli", *arguments],
        env={**os.environ, "COLUMNS": "80", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in done.stdout.splitlines() if not line.startswith("next: ")]
    return "\n".join(lines).strip("\n")


def block(text: str) -> str:
    return f"```text\n{text}\n```"


def commands_page() -> Iterator[str]:
    yield "# Commands"
    yield (
        "What `--help` prints. Exit codes: 0 done, gate passed; 1 done, gate failed; "
        "2 change something; 70 a bug in edgeq; 130 interrupted."
    )
    yield block(shown("--help"))
    for name in COMMANDS:
        yield f"## edgeq {name}"
        yield block(shown(name, "--help"))


def errors_page() -> Iterator[str]:
    yield "# Errors"
    yield (
        "An error says what, where and the value, then its slug in brackets, then lines to type. "
        "Slugs are stable. `edgeq explain SLUG` prints the same text as this page."
    )
    for name, row in sorted(SLUGS.items()):
        yield f"## {name}"
        yield row.cause
        yield block(f"error: {row.example}")
        yield f"{row.fix} Exit code {row.exit_code}."


def targets_page() -> Iterator[str]:
    yield "# Targets"
    yield (
        "A target is one file in `targets/`. Every number has a source: an address, or a section "
        "of the project's notes. Where no source can be quoted there is no number, and it says "
        "unknown."
    )
    yield block(shown("targets"))
    for name in targets.names():
        yield f"## {name}"
        yield block(shown("targets", name))


def operators_page() -> Iterator[str]:
    """From the tables that the writers, the reader and the plans go by."""
    yield "# Operators"
    yield (
        "An ONNX model may hold every operator that ONNX Runtime runs on a CPU; what becomes int8 "
        "is below. A TFLite file is written from the operators of the first table, and read from "
        "those of the last. What stands in neither is refused by name, before anything is written; "
        "so is a form of an operator that LiteRT has no kernel for. The graph is optimized first: "
        "what is known when the model is built (constants, shapes) is computed then, Identity and "
        "Dropout go, Upsample becomes Resize, and a BatchNormalization part of the Conv before it."
    )
    yield "## Written as TFLite"
    yield (
        "What a static int8 plan makes of them in each engine. `int8`: there is a kernel. `codes`: "
        "int8 elements are moved or clamped. `-`: computed in the types of the model, int8 "
        "tensors restored first; `edgeq inspect --plan` says why for each. LSTM, GRU and RNN, as "
        "MatMul and Gemm, may store their weights in int8."
    )
    yield "\n".join(
        [
            "| ONNX operator | LiteRT | ONNX Runtime |",
            "|---|---|---|",
            *(
                f"| {name.replace(':', '.')} | {precision(name, LITERT)} | "
                f"{precision(name, ONNXRUNTIME)} |"
                for name in sorted(families.handlers().keys() - GONE, key=str.lower)
            ),
        ]
    )
    yield "## Never written as TFLite"
    yield "\n".join(f"- {name}: {reason}." for name, reason in sorted(families.refused().items()))
    yield "## Read from TFLite"
    yield ", ".join(sorted(READERS)) + "."


def precision(name: str, kernels: Kernels) -> str:
    """In what an engine computes an operator in a static int8 plan."""
    if name in (*kernels.heavy, *kernels.joiners):
        return "int8"
    return "codes" if name in (*kernels.moves, *CLAMPS) else "-"


PAGES: dict[str, Callable[[], Iterator[str]]] = {
    "commands.md": commands_page,
    "errors.md": errors_page,
    "operators.md": operators_page,
    "targets.md": targets_page,
}


def page(name: str) -> str:
    return "\n\n".join([NOTICE, *PAGES[name]()]) + "\n"


def main(check: bool) -> int:
    stale = []
    for name in PAGES:
        path, text = HERE / name, page(name)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if not check:
                path.write_text(text, encoding="utf-8")
    if stale:
        print(
            *(
                f"docs/{name} {'is out of date: make docs' if check else 'written'}"
                for name in stale
            ),
            sep="\n",
        )
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
