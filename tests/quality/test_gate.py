"""The gate grammar: every rule of it, every mistake with its position, every line it prints."""
# ruff: noqa: E501 - tables of whole messages, one row each

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.errors import EdgeqError
from edgeq.quality import Quality, check_gate, check_names, parse_gate
from edgeq.quality.gate import METRIC_UNITS, SIZE_UNITS, TIME_UNITS

TOP1 = Quality("top1", 0.714, 0.719, 2000, (0.694, 0.733), (-0.011, 0.001), False, "fraction")
MAE = Quality("mae", 2.1, 2.0, 100, (1.9, 2.3), (0.05, 0.15), True, None)
ONE_NUMBER = Quality("iou", 0.5, 0.52)


def held(gate: str, *qualities: Quality, size: float = 3_600_000) -> tuple[bool, str]:
    result = check_gate(parse_gate(gate), {"size": size, **{q.metric: q for q in qualities}})
    assert len(result.lines) == 1
    return result.passed, result.lines[0].text


# -- parsing -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name", "op", "value", "unit", "relative"),
    [
        ("top1>=-0.5pt", "top1", ">=", -0.005, "pt", True),
        ("top1 >= -0.5 pt", "top1", ">=", -0.005, "pt", True),
        ("top1>=71%", "top1", ">=", 0.71, "%", False),
        ("top1>=0.71", "top1", ">=", 0.71, "", False),
        ("top1>+0", "top1", ">", 0.0, "", True),
        ("mae<=+5%", "mae", "<=", 0.05, "%", True),
        ("mse<1e-3", "mse", "<", 0.001, "", False),
        ("size<5MB", "size", "<", 5e6, "MB", False),
        ("size<=1.5kB", "size", "<=", 1500.0, "kB", False),
        ("p90<30ms", "p90", "<", 30.0, "ms", False),
        ("p50<0.5s", "p50", "<", 500.0, "s", False),
        ("rss<100MB", "rss", "<", 1e8, "MB", False),
        ("quality>=-1pt", "quality", ">=", -0.01, "pt", True),
        ("my_score.v2-b/c>1", "my_score.v2-b/c", ">", 1.0, "", False),
    ],
)
def test_rules(text: str, name: str, op: str, value: float, unit: str, relative: bool) -> None:
    (rule,) = parse_gate(text)
    assert (rule.text, rule.name, rule.op, rule.unit, rule.relative) == (
        text,
        name,
        op,
        unit,
        relative,
    )
    assert rule.value == pytest.approx(value, rel=1e-15)


def test_a_comma_string_and_a_list_are_the_same() -> None:
    text = "top1>=-1pt, p90<30ms,size<5MB"
    assert parse_gate(text) == parse_gate(["top1>=-1pt", "p90<30ms", "size<5MB"])
    assert parse_gate(None) == parse_gate([]) == ()


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("", "gate ``: a name is expected at position 1", "write it like top1>=-0.5pt or size<5MB"),
        ("top1>=-1pt,", "gate ``: a name is expected at position 1", None),
        ("top1", "gate `top1`: one of >=, <=, >, < is expected at position 5", None),
        ("top1=5", "gate `top1=5`: one of >=, <=, >, < is expected at position 5", None),
        ("top1==5", "gate `top1==5`: one of >=, <=, >, < is expected at position 5", None),
        ("top1 ! 5", "gate `top1 ! 5`: one of >=, <=, >, < is expected at position 6", None),
        ("top1>=", "gate `top1>=`: a number is expected at position 7", None),
        ("top1>=x", "gate `top1>=x`: a number is expected at position 7", None),
        ("top1>=nan", "gate `top1>=nan`: a number is expected at position 7", None),
        ("top1>=.5", "gate `top1>=.5`: a number is expected at position 7", None),
        (">=5", "gate `>=5`: a name is expected at position 1", None),
        ("5>=5", "gate `5>=5`: a name is expected at position 1", None),
        ("top1>=5 pt x", "gate `top1>=5 pt x`: a unit is expected at position 9", None),
        ("top1>=-0.5mm", "gate `top1>=-0.5mm`: unknown unit `mm` at position 11; `top1` takes `%`, `pt`", None),
        ("top1>=-0.5pp", "gate `top1>=-0.5pp`: unknown unit `pp` at position 11", None),
        ("size<5mb", "gate `size<5mb`: unknown unit `mb` at position 7; `size` takes `B`, `kB`, `MB`, `GB`", "did you mean `MB`?"),
        ("size<5MiB", "gate `size<5MiB`: unknown unit `MiB` at position 7", "one of: `B`, `GB`, `MB`, `kB`"),
        ("size<5", "gate `size<5`: no unit at position 7; `size` takes `B`, `kB`, `MB`, `GB`", None),
        ("size<5ms", "gate `size<5ms`: unknown unit `ms` at position 7", None),
        ("p90<30", "gate `p90<30`: no unit at position 7; `p90` takes `us`, `ms`, `s`", None),
        ("size<-5MB", "gate `size<-5MB`: `size` is absolute, and the sign at position 6 makes it relative", None),
        ("top1>=1e9999", "gate `top1>=1e9999`: ", None),
        ("top1>=1e999", "gate `top1>=1e999`: the number at position 7 is not finite", None),
    ],
)  # fmt: skip
def test_mistakes_have_their_position(text: str, message: str, hint: str | None) -> None:
    with pytest.raises(EdgeqError, match=rf"^{re.escape(message)}.*\[bad-gate\]$") as caught:
        parse_gate(text)
    assert hint is None or caught.value.hints == (hint,)


def test_too_many_rules() -> None:
    with pytest.raises(EdgeqError, match=r"a gate of 65 rules, more than 64 \[bad-gate\]"):
        parse_gate(["size<5MB"] * 65)


@given(st.text(alphabet="top1size<>=+-.05pt%MB, \t\nxé", max_size=30))
def test_any_text_is_rules_or_a_bad_gate(text: str) -> None:
    slug, count = "", 0
    try:
        count = len(parse_gate(text))
    except EdgeqError as error:
        slug = error.slug
    assert slug == "bad-gate" or count == text.count(",") + 1


@given(
    st.sampled_from(["top1", "size", "p90", "quality", "my_metric"]),
    st.sampled_from([">=", "<=", ">", "<"]),
    st.decimals(0, 9999, places=3, allow_nan=False),
    st.data(),
)
def test_what_is_written_by_the_grammar_is_read(
    name: str, op: str, number: object, data: st.DataObject
) -> None:
    units = {"size": SIZE_UNITS, "p90": TIME_UNITS}.get(name, METRIC_UNITS)
    unit = data.draw(st.sampled_from(sorted(units)))
    gap = data.draw(st.sampled_from(["", " "]))
    (rule,) = parse_gate(f"{name}{gap}{op}{gap}{number}{gap}{unit}")
    assert (rule.name, rule.op, rule.unit) == (name, op, unit)
    assert rule.value == float(str(number)) * units[unit]


# -- what can be measured ------------------------------------------------------------------------


@pytest.mark.parametrize("gate", ["p90<30ms", "p50<30ms", "p99<30ms", "rss<100MB"])
def test_what_is_not_measured_here_is_refused(gate: str) -> None:
    name = gate.split("<", maxsplit=1)[0]
    message = rf"^gate `{gate}`: `{name}` is not measured here \[gate-not-measurable\]$"
    with pytest.raises(EdgeqError, match=message) as caught:
        check_names(parse_gate(gate), ("top1",))
    assert caught.value.hints == ("measured here: size, top1",)
    with pytest.raises(EdgeqError, match=message):
        check_names(parse_gate(gate), None)
    with pytest.raises(EdgeqError, match=message):
        check_gate(parse_gate(gate), {"size": 1.0})


def test_names_are_checked_against_the_evaluation() -> None:
    check_names(parse_gate("size<5MB,top1>=-1pt,quality>=-1pt"), ("top1",))
    check_names(parse_gate("anything>=-1pt"), None)
    with pytest.raises(
        EdgeqError, match=r"unknown metric `topp1` at position 1 \[bad-gate\]"
    ) as caught:
        check_names(parse_gate("topp1>=-1pt"), ("top1", "mae"))
    assert caught.value.hints == ("did you mean `top1`?",)


@pytest.mark.parametrize("gate", ["top1>=-1pt", "quality>=-1pt"])
def test_a_metric_without_an_evaluation(gate: str) -> None:
    with pytest.raises(
        EdgeqError, match=r"no quality is measured without `--eval` \[gate-not-meas"
    ):
        check_names(parse_gate(gate), ())


def test_quality_names_the_only_metric() -> None:
    assert held("quality>=-1pt", TOP1)[0]
    with pytest.raises(
        EdgeqError, match=r"`quality` names the only metric, and there are 2 \[bad-gate\]"
    ):
        held("quality>=-1pt", TOP1, MAE)


def test_relative_needs_the_float_model() -> None:
    alone = Quality("top1", 0.7, None, 100, (0.6, 0.8), None, False, "fraction")
    with pytest.raises(EdgeqError, match=r"relative to the float model, which was not measured"):
        held("top1>=-1pt", alone)
    assert held("top1>=60%", alone)[0]


@pytest.mark.parametrize(
    ("gate", "metric", "better", "right"),
    [
        ("quality>=-1pt", "mae", "lower", "quality<=+1pt"),
        ("mae > -5 %", "mae", "lower", "mae<+5%"),
        ("mse>=+0.1", "mse", "lower", "mse<=+0.1"),
        ("top1<=+1pt", "top1", "higher", "top1>=-1pt"),
        ("top1<-1pt", "top1", "higher", "top1>-1pt"),
        ("cosine<=+0.01", "cosine", "higher", "cosine>=-0.01"),
    ],
)
def test_a_relative_rule_that_looks_the_wrong_way(
    gate: str, metric: str, better: str, right: str
) -> None:
    message = (
        rf"{better} is better of `{metric}`, and `.+` bounds the gain, not the loss \[bad-gate\]"
    )
    with pytest.raises(EdgeqError, match=message) as caught:
        check_names(parse_gate(gate), (metric,))
    assert caught.value.hints == (f"write `{right}`",)
    check_names(parse_gate(right), (metric,))


def test_the_direction_of_a_users_metric_is_known_once_it_is_measured() -> None:
    loss = Quality("loss", 1.1, 1.0, None, None, None, True)
    check_names(parse_gate("loss>=-1%"), None)
    with pytest.raises(EdgeqError, match=r"lower is better of `loss`") as caught:
        held("loss>=-1%", loss)
    assert caught.value.hints == ("write `loss<=+1%`",)
    with pytest.raises(EdgeqError, match=r"higher is better of `iou`") as caught:
        held("quality<=+0.1", ONE_NUMBER)
    assert caught.value.hints == (
        "write `quality>=-0.1`",
        "or give your function `lower_is_better = True`",
    )
    assert held("loss<=+20%", loss)[0]


@pytest.mark.parametrize("gate", ["top1<=99%", "mae>=0.1", "top1>0.5"])
def test_an_absolute_rule_may_look_either_way(gate: str) -> None:
    check_names(parse_gate(gate), ("top1", "mae"))


def test_a_relative_rule_without_a_baseline_is_refused_before_work() -> None:
    for gate, metrics in (("top1>=-1pt", ("top1",)), ("quality>=-1pt", None), ("iou>=-1pt", None)):
        with pytest.raises(EdgeqError, match=r"which was not measured \[gate-not-measurable\]"):
            check_names(parse_gate(gate), metrics, baselines=())
    check_names(parse_gate("top1>=-1pt,quality>=-1pt"), ("top1",), baselines=("top1",))
    check_names(parse_gate("quality>=-1pt"), None, baselines=("iou",))
    check_names(parse_gate("top1>=0.5,size<1MB"), ("top1",), baselines=())


def test_a_metric_of_edgeqs_own_that_was_not_asked_for() -> None:
    with pytest.raises(EdgeqError, match=r"`top1` is not measured here \[gate-not-meas") as caught:
        check_names(parse_gate("top1>=-1pt"), ("mae",))
    assert caught.value.hints == ("measured here: size, mae",)


def test_a_recorded_baseline_is_told() -> None:
    quality = Quality("top1", 0.7, 0.72, 100, (0.6, 0.8), None, False, "fraction", "as recorded")
    passed, text = held("top1>=-1pt", quality)
    assert not passed
    assert text == "gate top1>=-1pt failed: -2.00 pt against 72.00 %, as recorded, no interval"
    assert "recorded" not in held("top1>=60%", quality)[1]


# -- holding rules against figures ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("gate", "quality", "passed", "text"),
    [
        ("top1>=-1pt", TOP1, True, "gate top1>=-1pt passed: -0.50 pt, 95 % interval -1.10 pt to +0.10 pt, which does not decide it"),
        ("top1>=-2pt", TOP1, True, "gate top1>=-2pt passed: -0.50 pt, 95 % interval -1.10 pt to +0.10 pt"),
        ("top1>=-0.5pt", TOP1, True, "gate top1>=-0.5pt passed: -0.50 pt, 95 % interval -1.10 pt to +0.10 pt, which does not decide it"),
        ("top1>-0.5pt", TOP1, False, "gate top1>-0.5pt failed: -0.50 pt, 95 % interval -1.10 pt to +0.10 pt, which does not decide it"),
        ("top1>=+1pt", TOP1, False, "gate top1>=+1pt failed: -0.50 pt, 95 % interval -1.10 pt to +0.10 pt"),
        ("top1>=70%", TOP1, True, "gate top1>=70% passed: 71.40 %, 95 % interval 69.40 % to 73.30 %, which does not decide it"),
        ("top1>=0.69", TOP1, True, "gate top1>=0.69 passed: 71.40 %, 95 % interval 69.40 % to 73.30 %"),
        ("top1>=-1%", TOP1, True, "gate top1>=-1% passed: -0.50 pt, 95 % interval -1.10 pt to +0.10 pt, which does not decide it"),
        ("mae<=+5%", MAE, True, "gate mae<=+5% passed: +0.1, 95 % interval +0.05 to +0.15, which does not decide it"),
        ("mae<=+4%", MAE, False, "gate mae<=+4% failed: +0.1, 95 % interval +0.05 to +0.15, which does not decide it"),
        ("mae<=+0.2", MAE, True, "gate mae<=+0.2 passed: +0.1, 95 % interval +0.05 to +0.15"),
        ("mae<2.5", MAE, True, "gate mae<2.5 passed: 2.1, 95 % interval 1.9 to 2.3"),
        ("iou>=-0.1", ONE_NUMBER, True, "gate iou>=-0.1 passed: -0.02, no interval"),
    ],
)  # fmt: skip
def test_a_quality_rule(gate: str, quality: Quality, passed: bool, text: str) -> None:
    assert held(gate, quality) == (passed, text)


@pytest.mark.parametrize(
    ("gate", "size", "passed", "text"),
    [
        ("size<5MB", 3_600_000, True, "gate size<5MB passed: 3.6 MB"),
        ("size<3.6MB", 3_600_000, False, "gate size<3.6MB failed: 3.6 MB"),
        ("size<=3.6MB", 3_600_000, True, "gate size<=3.6MB passed: 3.6 MB"),
        ("size<100kB", 123_456, False, "gate size<100kB failed: 123.5 kB"),
        ("size>1B", 2, True, "gate size>1B passed: 2 B"),
        ("size>1B", 123_456_789, True, "gate size>1B passed: 123456789 B"),
    ],
)
def test_a_size_rule(gate: str, size: float, passed: bool, text: str) -> None:
    assert held(gate, size=size) == (passed, text)


def test_all_rules_must_hold() -> None:
    result = check_gate(parse_gate("size<5MB,top1>=-0.1pt"), {"size": 1e6, "top1": TOP1})
    assert [line.passed for line in result.lines] == [True, False]
    assert not result.passed
    assert result.to_json() == {
        "passed": False,
        "rules": [
            {"rule": "size<5MB", "passed": True, "certain": True, "text": "gate size<5MB passed: 1 MB"},
            {
                "rule": "top1>=-0.1pt", "passed": False, "certain": False,
                "text": "gate top1>=-0.1pt failed: -0.50 pt, 95 % interval -1.10 pt to +0.10 pt,"
                " which does not decide it",
            },
        ],
    }  # fmt: skip
    assert check_gate((), {}).passed


@given(
    st.integers(1, 3000).flatmap(
        lambda n: st.tuples(st.integers(0, n), st.integers(0, n), st.just(n))
    )
)
def test_a_difference_exactly_on_the_boundary_passes(case: tuple[int, int, int]) -> None:
    """`-D` written as a fraction of n must hold for a difference of D samples, whatever float64 does."""
    a, b, n = case
    quality = Quality("m", a / n, b / n, n, None, None, False, "fraction")
    sign = "-" if a <= b else "+"
    (rule,) = parse_gate(f"m>={sign}{abs(a - b) / n:.17f}")
    assert check_gate((rule,), {"m": quality}).passed
    (strict,) = parse_gate(f"m>{sign}{abs(a - b) / n:.17f}")
    assert not check_gate((strict,), {"m": quality}).passed
