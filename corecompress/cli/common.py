"""What several verbs share: options, progress, output."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from corecompress.errors import CorecompressError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from corecompress.components import Progress

Command = TypeVar("Command", bound=Callable[..., Any])

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}

MOST_SEED = 2**32 - 1
"""What every library takes that has a generator."""


class Size(click.ParamType):  # type: ignore[type-arg]
    """Bytes as a person writes them: 1500000, 1.5GB, 40MB, 2GiB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        text = str(value).strip().lower().removesuffix("b")
        number = text.rstrip("kmgti")
        try:
            size = int(float(number) * _UNITS[text[len(number) :]])
        except (ValueError, KeyError, OverflowError):
            self.fail(f"'{value}' is no size; write 1500000, 40MB, 1.5GB or 2GiB", param, ctx)
        if size <= 0:
            self.fail(f"'{value}' is not above zero", param, ctx)
        return size


def option_json(command: Command) -> Command:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else.")(command)


def option_quiet(command: Command) -> Command:
    return click.option("--quiet", "-q", is_flag=True, help="Print nothing but warnings and errors.")(command)


def option_jobs(command: Command) -> Command:
    help = "Threads (default: one a core)."
    return click.option("--jobs", "-j", type=click.IntRange(1), metavar="N", help=help)(command)


def option_memory(command: Command) -> Command:
    help = "Ceiling of resident memory, e.g. 1.5GB (default: what the largest tensors need)."
    return click.option("--max-memory", type=Size(), metavar="M", help=help)(command)


def option_force(command: Command) -> Command:
    return click.option("--force", is_flag=True, help="Replace OUT if it exists, and an unfinished run.")(command)


def option_recipe(command: Command) -> Command:
    help = "Recipe: 'lossless', 'name(option=value) | name', or a .toml file."
    return click.option("--recipe", "-r", default="lossless", show_default=True, metavar="RECIPE", help=help)(command)


def option_data(command: Command) -> Command:
    help = "Data, NAME:SOURCE or NAME(option=value):SOURCE, for example text:corpus.txt."
    return click.option("--data", required=True, metavar="SPEC", help=help)(command)


def option_samples(command: Command) -> Command:
    help = "Windows, sentences or images to use (default: 32 windows, 512 sentences or images)."
    return click.option("--samples", type=click.IntRange(1), metavar="N", help=help)(command)


def option_seed(command: Command) -> Command:
    help = "Seed of all that is random."
    return click.option("--seed", type=click.IntRange(0, MOST_SEED), default=0, show_default=True, help=help)(command)


def option_compute(command: Command) -> Command:
    """--seed, --dtype and --device of a verb that runs models."""
    kinds = click.Choice(["float32", "bfloat16", "float16", "auto"])
    options = (
        option_seed,
        click.option("--dtype", type=kinds, default="float32", show_default=True, help="What both sides compute in."),
        click.option("--device", metavar="NAME", help="cpu, cuda, cuda:1, … (default: cuda where there is one)."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def emit(value: Any, table: Callable[..., RenderableType], as_json: bool, quiet: bool = False, **more: Any) -> None:
    """Print a result as a table, as JSON, or not at all; what there is to say of several processes, the leader says."""
    from corecompress.ranks import is_follower
    from corecompress.report import tables

    if is_follower():
        return
    if as_json:
        click.echo(json.dumps(tables.as_json(value) | more, indent=1, ensure_ascii=False))
    elif not quiet:
        tables.show(table(value, **more))


@contextmanager
def progress(quiet: bool) -> Iterator[Progress]:
    """A bar on a terminal, plain lines elsewhere, nothing with --quiet; all on standard error."""
    from corecompress.progress import Lines, Mute, Silent
    from corecompress.ranks import is_follower

    if is_follower():
        yield Mute()
    elif quiet:
        yield Silent()
    elif not sys.stderr.isatty():
        yield Lines()
    else:
        from corecompress.report.bar import Bar

        with Bar() as bar:
            yield bar


def warn_unknown_plugins() -> None:
    """A name on an allow or block list that no plugin has is probably a typing error."""
    from corecompress.plugins import registry, unknown_choices

    for name in unknown_choices():
        known = ", ".join(plugin.distribution for plugin in registry().plugins) or "none"
        raise CorecompressError(f"no plugin is called '{name}' (allow or block list); installed: {known}")
