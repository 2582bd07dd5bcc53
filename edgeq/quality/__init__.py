"""Quality: metrics with intervals, evaluations of either form, and the one gate grammar."""

from edgeq.quality.evaluation import Evaluation, Run, Scores, compare, open_evaluation
from edgeq.quality.gate import GateLine, GateResult, Rule, check_gate, check_names, parse_gate
from edgeq.quality.intervals import paired_bootstrap, wilson
from edgeq.quality.metrics import METRICS, Metric, Quality

__all__ = [
    "METRICS",
    "Evaluation",
    "GateLine",
    "GateResult",
    "Metric",
    "Quality",
    "Rule",
    "Run",
    "Scores",
    "check_gate",
    "check_names",
    "compare",
    "open_evaluation",
    "paired_bootstrap",
    "parse_gate",
    "wilson",
]
