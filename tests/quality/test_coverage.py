"""The intervals cover: simulated with fixed seeds, 2000 samples of each situation.

The standard error of a simulated coverage of 95 % over 2000 trials is sqrt(0.95 * 0.05 / 2000) =
0.49 points, so 93-97 % leaves four of them to either side.
"""

from collections.abc import Callable

import numpy as np
import pytest

from edgeq.quality import intervals, paired_bootstrap, wilson

TRIALS = 2000
LOW, HIGH = 0.93, 0.97


@pytest.fixture
def fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """1000 resamples move an end of the interval by under 5 % of its width: enough to count."""
    monkeypatch.setattr(intervals, "RESAMPLES", 1000)


@pytest.mark.parametrize("rate", [0.5, 0.72, 0.9, 0.98])
@pytest.mark.parametrize("n", [100, 300, 600, 2000])
def test_wilson_covers_rates(rate: float, n: int) -> None:
    """Exactly, not by simulation: the binomial weights of the k whose interval has the rate."""
    k = np.arange(n + 1)
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    weights = np.exp(logs[n] - logs[k] - logs[n - k] + k * np.log(rate) + (n - k) * np.log1p(-rate))
    inside = np.array([lo <= rate <= hi for lo, hi in (wilson(int(i), n) for i in k)])
    assert LOW <= (weights * inside).sum() <= HIGH


@pytest.mark.parametrize(("rate", "n"), [(0.72, 200), (0.9, 600), (0.98, 1000)])
def test_wilson_covers_simulated_rates(rate: float, n: int) -> None:
    hits = np.random.default_rng(3).binomial(n, rate, size=TRIALS)
    ends = np.array([wilson(int(k), n) for k in hits])
    assert LOW <= ((ends[:, 0] <= rate) & (rate <= ends[:, 1])).mean() <= HIGH


def coverage(
    draw: Callable[[np.random.Generator], np.ndarray], truth: float, bound: float | None
) -> float:
    generator = np.random.default_rng(11)
    covered = 0
    for trial in range(TRIALS):
        low, high = paired_bootstrap(draw(generator), seed=trial, bound=bound)
        covered += low <= truth <= high
    return covered / TRIALS


@pytest.mark.usefixtures("fewer_resamples")
@pytest.mark.parametrize(
    ("n", "worse", "better"),
    [(100, 0.10, 0.05), (200, 0.05, 0.02), (600, 0.02, 0.02), (600, 0.03, 0.01),
     (2000, 0.01, 0.003), (2000, 0.10, 0.10)],
)  # fmt: skip
def test_differences_of_rates(n: int, worse: float, better: float) -> None:
    """Float and artifact disagree on a share `worse` + `better` of the samples."""
    chances = [worse, 1 - worse - better, better]
    measured = coverage(
        lambda g: g.choice([-1.0, 0.0, 1.0], size=n, p=chances), better - worse, 1.0
    )
    assert LOW <= measured <= HIGH, measured


@pytest.mark.usefixtures("fewer_resamples")
@pytest.mark.parametrize(
    ("n", "worse", "better"), [(50, 0.02, 0.02), (100, 0.01, 0.003), (200, 0.005, 0)]
)
def test_rare_differences_are_covered_at_least(n: int, worse: float, better: float) -> None:
    """Where one pair or none differs no interval can have 95 %: it must be wide, never narrow."""
    chances = [worse, 1 - worse - better, better]
    measured = coverage(
        lambda g: g.choice([-1.0, 0.0, 1.0], size=n, p=chances), better - worse, 1.0
    )
    assert measured >= 0.95


@pytest.mark.usefixtures("fewer_resamples")
@pytest.mark.parametrize("n", [60, 150, 300])
@pytest.mark.parametrize(
    ("draw", "truth"),
    [
        (lambda g, n: g.normal(0.1, 1.0, n), 0.1),
        (lambda g, n: g.exponential(1.0, n) - 0.8 * g.exponential(1.0, n), 0.2),
    ],
    ids=["normal", "skewed"],
)
def test_differences_of_means(n: int, draw: Callable[..., np.ndarray], truth: float) -> None:
    measured = coverage(lambda g: draw(g, n), truth, None)
    assert LOW <= measured <= HIGH, measured
