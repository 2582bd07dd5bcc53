"""Make the golden vectors of preprocessing again: `python runtimes/vectors/make_preprocess.py`.

preprocess.json holds, for each vector, an image by its shape and seed (FORMAT.md 7.6), a table
`[input.NAME]`, and what a reader must make of the two: the 8-bit pixels after resize, crop and
channel order, and the SHA-256 of the float32 values.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from edgeq_runtime import InputSpec
from edgeq_runtime.golden import splitmix64

FILE = Path(__file__).parent / "preprocess.json"
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}

# (height, width, channels), and the table: shrinking, growing, one side only, the shorter side,
# crops that are odd and even away from the middle, grey, BGR, channels last, other scales.
CASES: tuple[tuple[tuple[int, int, int], dict[str, Any]], ...] = (
    ((7, 5, 3), {"resize": [3, 4]}),
    ((3, 4, 3), {"resize": [7, 9]}),
    ((6, 6, 3), {"resize": [6, 3]}),
    ((6, 6, 3), {"resize": [3, 6]}),
    ((1, 1, 3), {"resize": [4, 4]}),
    ((5, 1, 3), {"resize": [2, 3]}),
    ((64, 48, 3), {"resize": [5, 7]}),
    ((100, 3, 3), {"resize": [4, 2]}),
    ((33, 50, 3), {"resize": 8, "crop": 7}),
    ((50, 33, 3), {"resize": 8, "crop": [8, 5]}),
    ((9, 9, 3), {"crop": 4}),
    ((9, 10, 3), {"crop": [4, 4]}),
    ((11, 8, 3), {"crop": [4, 5]}),
    ((8, 13, 3), {"crop": [7, 6]}),
    ((5, 5, 1), {"resize": [8, 3]}),
    ((9, 6, 1), {"resize": 4, "crop": 4, "layout": "nhwc", "mean": [0.5], "std": [0.5]}),
    ((8, 8, 3), {"resize": [5, 5], **IMAGENET}),
    ((8, 8, 3), {"resize": [5, 5], "channels": "bgr", **IMAGENET}),
    ((12, 10, 3), {"resize": 6, "crop": 5, "layout": "nhwc", **IMAGENET}),
    ((4, 4, 3), {"scale": 1.0, "mean": [127.5], "std": [127.5]}),
    ((4, 4, 3), {"scale": 1.0}),
    ((2, 3, 3), {"scale": 0.1, "mean": [1e-3, -2.0, 3.0], "std": [1e-3, 7.0, 1e6]}),
)


def vector(seed: int, shape: tuple[int, int, int], table: dict[str, Any]) -> dict[str, Any]:
    """One row of the file."""
    count = shape[0] * shape[1] * shape[2]
    image = (splitmix64(seed, count) >> np.uint64(56)).astype(np.uint8).reshape(shape)
    spec = InputSpec.from_table("image", table)
    plain = {**spec.to_json(), "scale": 1.0, "mean": [0.0], "std": [1.0], "layout": "nhwc"}
    codes = InputSpec.from_table("image", plain).apply(image).astype(np.uint8)
    values = spec.apply(image)
    return {
        "image": {"shape": list(shape), "seed": seed},
        "spec": spec.to_json(),
        "pixels": {"shape": list(codes.shape), "hex": codes.tobytes().hex()},
        "values": {
            "shape": list(values.shape),
            "first": [float(value) for value in values.reshape(-1)[:4]],
            "sha256": hashlib.sha256(values.astype("<f4").tobytes()).hexdigest(),
        },
    }


def document() -> str:
    """The whole file, one vector a line."""
    rows = [json.dumps(vector(seed, *case)) for seed, case in enumerate(CASES)]
    return "[\n" + ",\n".join(rows) + "\n]\n"


def main() -> None:
    """Write it."""
    FILE.write_text(document(), encoding="utf-8")
    sys.stdout.write(f"{FILE.name}: {len(CASES)} vectors, {FILE.stat().st_size} bytes\n")


if __name__ == "__main__":
    main()
