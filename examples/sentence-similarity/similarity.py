"""What edgeq.toml names: `calibration` yields sentences, `spearman` scores an artifact.

pairs.tsv holds pairs of sentences with a mark from 0 (nothing in common) to 5 (the same thing
said); the sentences and marks are this project's own. Those of the first part are scored; the
others are calibrated on.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tokenizer import Tokenizer

HERE = Path(__file__).resolve().parent
Feeds = dict[str, np.ndarray[Any, Any]]


def pairs(part: str) -> list[tuple[float, str, str]]:
    """(mark, sentence, sentence) of the rows whose first column is `part`."""
    rows = [line.split("\t") for line in (HERE / "pairs.tsv").read_text("utf-8").splitlines()]
    return [(float(mark), one, other) for kind, mark, one, other in rows if kind == part]


def feeds(tokenizer: Tokenizer, text: str) -> Feeds:
    """One sentence as the model's inputs [1, tokens] int64, without padding."""
    ids = np.array([tokenizer.encode(text)], np.int64)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def calibration() -> Iterator[Feeds]:
    """The sentences that are not scored, one at a time."""
    tokenizer = Tokenizer(HERE / "vocab.txt")
    for _, one, other in pairs("calibrate"):
        yield feeds(tokenizer, one)
        yield feeds(tokenizer, other)


def spearman(run: Callable[[Feeds], Mapping[str, np.ndarray[Any, Any]]]) -> float:
    """Spearman's rank correlation of the cosines with the marks: 1 is the same order."""
    tokenizer, rows = Tokenizer(HERE / "vocab.txt"), pairs("score")
    vectors = [
        [run(feeds(tokenizer, text))["embedding"][0] for text in (one, other)]
        for _, one, other in rows
    ]
    cosines = np.array([one @ other for one, other in vectors])
    return float(np.corrcoef(ranks(cosines), ranks(np.array([row[0] for row in rows])))[0, 1])


def ranks(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The place of each value in order; equal values share the mean of their places."""
    below = (values[None] < values[:, None]).sum(1)
    return below + ((values[None] == values[:, None]).sum(1) - 1) / 2
