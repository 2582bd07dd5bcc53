"""click with edgeq's manners: commands imported on use, options in sections, examples last."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edgeq.errors import EdgeqError

    TextType = click.ParamType[str]
    NumberType = click.ParamType[int]
else:  # generic from click 8.4 on
    TextType = NumberType = click.ParamType

HELP = "Show this message and exit"
VERSION = "Print the version and exit"


def usage_error(message: str, context: click.Context | None, *hints: str) -> EdgeqError:
    """Wrong usage in `context`; the hint is `hints`, else the help of the command."""
    from edgeq.errors import EdgeqError

    path = "edgeq" if context is None else context.command_path
    return EdgeqError("usage", message, *(hints or (f"{path} --help",)))


class Option(click.Option):
    """An option that says under which heading of the help it stands."""

    def __init__(self, *args: Any, section: str = "Options", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """Refuse an option of the command where a value was forgotten: `--data --int8`."""
        given = value if isinstance(value, tuple | list) else (value,)
        options = {name for param in ctx.command.params for name in param.opts}
        for word in given:
            if not self.is_flag and word in options:
                raise usage_error(f"`{self.opts[-1]}` needs a value, not the option `{word}`", ctx)
        return super().type_cast_value(ctx, value)


class Choice(TextType):
    """One word out of a few; anything else is refused with the words and the nearest one."""

    name = "choice"

    def __init__(self, *words: str) -> None:
        self.words = words

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "|".join(self.words)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value in self.words:
            return str(value)
        option = "" if param is None else f"`{param.opts[-1]}` "
        raise usage_error(
            f"{option}is {_words(self.words)}, not `{value}`", ctx, *nearest(value, self.words)
        )


class Count(NumberType):
    """A whole number of 1 or more."""

    name = "n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value)
        if text.isascii() and text.isdigit() and len(text) <= 18 and int(text) >= 1:
            return int(text)
        option = "the value" if param is None else f"`{param.opts[-1]}`"
        raise usage_error(f"{option} is a whole number of 1 or more, not `{value}`", ctx)


class Command(click.Command):
    """A command whose help has sections and examples (`examples`: comment, line to type)."""

    def __init__(
        self, *args: Any, examples: tuple[tuple[str, str], ...] = (), **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.context_settings.update(help_option_names=["-h", "--help"], allow_extra_args=True)
        self.help = (self.help or "").rstrip(".")
        self.examples = examples

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            rest = super().parse_args(ctx, args)
        except click.UsageError as wrong:
            wrong.ctx = wrong.ctx or ctx
            raise
        if ctx.args:
            raise usage_error(f"`{ctx.command_path}` takes no argument `{ctx.args[0]}`", ctx)
        return rest

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, Option):
                sections.setdefault(param.section, []).append(record)
        sections["Help"] = [(", ".join(self.get_help_option_names(ctx)), HELP)]
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records, col_max=34)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(self.examples, formatter)


class LazyGroup(click.Group):
    """A group whose commands are a table: name -> ("module:attribute", one help line).

    Listing them costs no import; a command's module is imported when it is the one to run.
    """

    def __init__(
        self,
        *args: Any,
        table: Mapping[str, tuple[str, str]],
        examples: tuple[tuple[str, str], ...] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.help = (self.help or "").rstrip(".")
        self.table = table
        self.examples = examples

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.table:
            return None
        module, attribute = self.table[cmd_name][0].split(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name in self.table or name.startswith("-"):
            return super().resolve_command(ctx, args)
        hints = nearest(name, self.table)
        raise usage_error(f"there is no command `{name}`", ctx, *hints)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_commands(ctx, formatter)
        with formatter.section("Options"):
            formatter.write_dl([("--version", VERSION), ("-h, --help", HELP)])

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self.table.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(self.examples, formatter)


def nearest(word: str, words: Iterable[str]) -> tuple[str, ...]:
    """The hint for a mistyped word where one of `words` is close; nothing where none is."""
    from edgeq.errors import nearest as closest

    match = closest(word, words)
    return () if match is None else (f"did you mean `{match}`?",)


def write_examples(examples: tuple[tuple[str, str], ...], formatter: click.HelpFormatter) -> None:
    """Write the "Examples" section: each a comment and the line to type, never wrapped."""
    if not examples:
        return
    formatter.write_paragraph()
    formatter.write("Examples:\n")
    for comment, line in examples:
        formatter.write(f"  # {comment}\n  {line}\n")


def _words(words: tuple[str, ...]) -> str:
    """`a`, `b` or `c`."""
    quoted = [f"`{word}`" for word in words]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"
