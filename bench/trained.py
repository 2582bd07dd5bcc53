"""The net of `nets.py` that answers a question, so that a point lost means something.

    python bench/trained.py build/bench/depthwise.onnx build/bench/digits32.npz

The task is the digits of examples/digits, enlarged, moved about and covered with noise: [N, 1, 32,
32] float32, ten classes. Under a minute with numpy alone and fixed seeds; the weights differ in
their last digits from one BLAS to another. 92 % of the scored images are right.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nets
import numpy as np
import onnx
from numpy.typing import NDArray
from training import Trainer

DIGITS = Path(__file__).parents[1] / "examples" / "digits" / "eval.npz"
TRAIN = 400  # of the 640 labelled images; the other 240 are scored
SIZE, NOISE = 32, 0.25
EPOCHS, BATCH, COPIES = 7, 40, 4


@dataclass(frozen=True)
class Digits:
    """Images [N, 1, 32, 32] float32 with labels [N]: to train on and to score; `calibration` are
    images of the first kind, drawn anew."""

    train: tuple[NDArray[np.float32], NDArray[np.int64]]
    score: tuple[NDArray[np.float32], NDArray[np.int64]]
    calibration: NDArray[np.float32]


def digits(calibration: int = 200, copies: int = COPIES) -> Digits:
    """The task: each of the 240 scored images is drawn `copies` times, with its own noise."""
    random = np.random.default_rng(0)
    with np.load(DIGITS) as arrays:
        images, labels = arrays["image"][:, 0], arrays["y"].astype(np.int64)
    first, last = slice(0, TRAIN), np.tile(np.arange(TRAIN, len(images)), copies)
    many = np.tile(np.arange(TRAIN), 2 * copies)
    return Digits(
        (_draw(images[many], random), labels[many]),
        (_draw(images[last], random), labels[last]),
        _draw(images[first][:calibration], random),
    )


def _draw(images: NDArray[Any], random: np.random.Generator) -> NDArray[np.float32]:
    """[N, 8, 8] in 0..1 -> [N, 1, 32, 32]: three times as large, somewhere on a noisy ground."""
    canvas = random.standard_normal((len(images), 1, SIZE, SIZE), dtype=np.float32) * NOISE
    large = np.kron(images, np.ones((3, 3), np.float32))
    room = SIZE - large.shape[1] + 1
    for image, digit in zip(canvas, large, strict=True):
        y, x = random.integers(0, room, 2)
        image[0, y : y + 24, x : x + 24] += digit
    return canvas


def train(model: onnx.ModelProto, data: Digits, epochs: int = EPOCHS) -> onnx.ModelProto:
    """Adam with a cosine schedule; every image is seen once an epoch."""
    random, trainer = np.random.default_rng(0), Trainer(model)
    images, labels = data.train
    peak, total = trainer.rate, epochs * (len(images) // BATCH)
    for _ in range(epochs):
        order = random.permutation(len(images))
        for start in range(0, len(images) - BATCH + 1, BATCH):
            rows = order[start : start + BATCH]
            trainer.rate = peak * (1 + np.cos(np.pi * trainer.steps / total)) / 2
            trainer.step(images[rows], labels[rows])
    trainer.settle(np.split(images, len(images) // TRAIN))
    return trainer.write()


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the small depthwise net and write its data")
    parser.add_argument("out", type=Path)
    parser.add_argument("data", type=Path, help=".npz: calib_x, x, y")
    arguments = parser.parse_args()
    data = digits()
    model = train(nets.depthwise(), data)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_bytes(model.SerializeToString(deterministic=True))
    np.savez(arguments.data, calib_x=data.calibration, x=data.score[0], y=data.score[1])


if __name__ == "__main__":
    main()
