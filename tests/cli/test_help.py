"""Help texts: whole, true to the commands they list, and cheap to ask for."""

import re
import shlex
import subprocess
import sys
from importlib import import_module

import click
import pytest

from edgeq.cli.entry import COMMANDS, EXAMPLES, group

NAMES = (
    *("build", "run", "eval", "verify", "compare", "inspect"),
    *("init", "targets", "doctor", "explain"),
)


def command(name: str) -> click.Command:
    module, attribute = COMMANDS[name][0].split(":")
    return getattr(import_module(module), attribute)


def test_the_commands_are_those_that_exist() -> None:
    assert tuple(COMMANDS) == NAMES


def test_the_group_help(edgeq, golden) -> None:
    golden("help", edgeq("--help"))


@pytest.mark.parametrize("name", NAMES)
def test_command_help(edgeq, golden, name: str) -> None:
    golden(f"help-{name}", edgeq(name, "--help"))


def test_no_command_is_the_help_on_stderr_and_wrong_usage(edgeq) -> None:
    nothing = edgeq()
    assert (nothing.code, nothing.out) == (2, "")
    assert nothing.err == edgeq("-h").out


@pytest.mark.parametrize("name", NAMES)
def test_the_listed_line_is_the_command_s_own(name: str) -> None:
    assert command(name).help == COMMANDS[name][1]


@pytest.mark.parametrize("name", NAMES)
def test_help_lines_are_imperative_and_without_full_stop(name: str) -> None:
    for param in command(name).params:
        if isinstance(param, click.Option):
            assert param.help, param.name
            assert not param.help.endswith("."), param.help
            assert param.help[0].isupper() or param.help.startswith("int8"), param.help


@pytest.mark.parametrize("name", NAMES)
def test_every_example_parses(name: str) -> None:
    assert 2 <= len(command(name).examples) <= 3
    for _, line in (*command(name).examples, *EXAMPLES):
        program, verb, *arguments = shlex.split(line.replace("$(edgeq targets --host)", "rpi5"))
        assert program == "edgeq"
        command(verb).make_context(verb, arguments, parent=click.Context(group))


def test_every_option_stands_under_a_heading() -> None:
    for name in NAMES:
        for param in command(name).params:
            if isinstance(param, click.Option):
                assert getattr(param, "section", None), (name, param.name)


def test_version(edgeq) -> None:
    import edgeq as package

    assert edgeq("--version").out == f"edgeq {package.__version__}\n"


HEAVY = ("numpy", "rich", "onnx", "onnx_ir", "onnxruntime", "sympy", "jsonschema")
LIGHT_COMMANDS = (
    (["--help"], ("edgeq.config", "edgeq.errors", "edgeq.api")),
    (["build", "--help"], ("edgeq.api",)),
    (["targets"], ("edgeq.api",)),
    (["explain"], ("edgeq.api",)),
    (["build", "--int8", "--fp32"], ("edgeq.api",)),
)


@pytest.mark.parametrize(("arguments", "unwanted"), LIGHT_COMMANDS)
def test_nothing_heavy_is_loaded(arguments: list[str], unwanted: tuple[str, ...]) -> None:
    code = (
        "import sys; from edgeq.cli import main; main(sys.argv[1:]);"
        f"print([m for m in {(*HEAVY, *unwanted)!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {code}", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.splitlines()[-1] == "[]"


BARE = "import click\n@click.group()\ndef cli(): 'bare'\n" + "".join(
    f"@cli.command('{name}')\ndef c{place}(): 'One line of help'\n"
    for place, name in enumerate(NAMES)
)


def test_help_costs_at_most_a_third_more_than_a_bare_click_program() -> None:
    """CPU time of whole processes, interleaved; the median ratio of pairs ignores a busy host."""
    ours = f"import sys; sys.path[:] = {sys.path!r}; from edgeq.cli import main; main(['--help'])"
    bare = f"import sys; sys.path[:] = {sys.path!r}\n{BARE}cli(['--help'])"
    ratios = sorted(_cpu_seconds(ours) / _cpu_seconds(bare) for _ in range(15))
    assert ratios[7] <= 1.3, ratios


def _cpu_seconds(code: str) -> float:
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_no_help_names_a_command_or_flag_of_later_issues() -> None:
    later = (
        r"edgeq (ladder|profile|export|devices)\b"
        r"|--(int4|on|recipe)\b"
    )
    for name in NAMES:
        text = command(name).get_help(click.Context(command(name), info_name=name))
        assert re.search(later, text) is None, name


def test_the_metrics_in_the_help_are_those_there_are() -> None:
    from edgeq.quality import METRICS

    for name in ("build", "eval"):
        metric = next(param for param in command(name).params if param.name == "metric")
        *first, last = METRICS
        assert metric.help.endswith(f": {', '.join(first)} or {last}")
