"""Train the digits example: writes digits.onnx, calib.npz and eval.npz beside this file.

    pip install "edgeq[torch]" scikit-learn
    python examples/digits/train.py

The same seeds give the same split everywhere, and the same weights on the same torch build.
"""

from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
SEED = 0
EVAL, CALIB = 640, 128  # of 1797 images; the other 1029 are for training
EPOCHS, BATCH = 60, 32


class ConvNormRelu(nn.Sequential):
    """A 3x3 convolution (or another size), BatchNorm, Relu."""

    def __init__(self, inputs: int, outputs: int, size: int = 3, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, size, padding=size // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )


class Residual(nn.Module):
    """A depthwise and a pointwise convolution beside the identity, added, then Relu."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = ConvNormRelu(channels, channels, groups=channels)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(x + self.norm(self.pointwise(self.depthwise(x))))


class Digits(nn.Module):
    """image [N, 1, 8, 8] float32 in 0..1 -> scores [N, 10] float32."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            ConvNormRelu(1, 32),
            ConvNormRelu(32, 48),
            nn.MaxPool2d(2),
            Residual(48),
            ConvNormRelu(48, 64),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Linear(64 * 2 * 2, 10)

    def forward(self, image: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.features(image), 1))


def split() -> tuple[tuple[NDArray[np.float32], NDArray[np.int64]], ...]:
    """(images, labels) to train on, to calibrate on, to evaluate on; no image is in two of them."""
    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)[:, None]
    order = np.random.default_rng(SEED).permutation(len(images))
    parts = np.split(order, [EVAL, EVAL + CALIB])
    evaluate, calibrate, train = ((images[part], digits.target[part]) for part in parts)
    return train, calibrate, evaluate


def shifted(images: Tensor) -> Tensor:
    """Move each image by -1, 0 or 1 pixel in each direction; zeros come in at the border."""
    padded = nn.functional.pad(images, (1, 1, 1, 1))
    moves = torch.randint(0, 3, (len(images), 2)).tolist()
    return torch.stack(
        [image[:, y : y + 8, x : x + 8] for image, (y, x) in zip(padded, moves, strict=True)]
    )


def train(images: NDArray[np.float32], labels: NDArray[np.int64]) -> Digits:
    """Train with AdamW, a cosine schedule and small shifts; returns the net in eval mode."""
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    net, x, y = Digits(), torch.from_numpy(images), torch.from_numpy(labels)
    optimizer = torch.optim.AdamW(net.parameters(), lr=4e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(shifted(x[batch])), y[batch]).backward()
            optimizer.step()
        schedule.step()
    return net.eval()


def export(net: Digits, path: Path) -> None:
    """Write the float ONNX file with a free batch axis.

    The TorchScript exporter with `PRESERVE` keeps BatchNorm as a node of its own: folding it is
    edgeq's work, and is shown in the build's output.
    """
    torch.onnx.export(
        net,
        (torch.zeros(2, 1, 8, 8),),
        path,
        input_names=["image"],
        output_names=["scores"],
        dynamic_axes={"image": {0: "batch"}, "scores": {0: "batch"}},
        opset_version=17,
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
        dynamo=False,
    )
    onnx.checker.check_model(path, full_check=True)


def main() -> None:
    training, calibration, evaluation = split()
    net = train(*training)
    with torch.no_grad():
        scores = net(torch.from_numpy(evaluation[0])).numpy()
    export(net, HERE / "digits.onnx")
    np.savez_compressed(HERE / "calib.npz", image=calibration[0])
    np.savez_compressed(HERE / "eval.npz", image=evaluation[0], y=evaluation[1])
    right = int((scores.argmax(1) == evaluation[1]).sum())
    print(f"{right} of {EVAL} evaluation images right ({right / EVAL:.2%})")


if __name__ == "__main__":
    main()
