"""The command line. One file a verb; a verb's module is imported when that verb is called."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

VERBS = {
    "compress": "Make a checkpoint smaller: SRC in, OUT out, and a table of before and after.",
    "decompress": "Write a compressed folder as an ordinary checkpoint again.",
    "inspect": "Show what is in a checkpoint or a compressed folder, tensor by tensor.",
    "verify": "Check every file and every tensor of a compressed folder.",
    "plan": "Dry run: which rule takes which tensor, and what it will cost.",
    "evaluate": "Hold a compressed folder against its original: perplexity, KL, cosine, agreement.",
    "compare": "Run several recipes and draw bytes against quality.",
    "benchmark": "Time loading, latency and throughput of a compressed folder against its original.",
    "fit": "Train an encoder and its prior on data: a codec for recipes, or a generative model.",
    "generate": "Draw new samples from a fitted model: text lines or images.",
    "reconstruct": "Show samples beside what a fitted model makes of them.",
    "data": "Show data as a model will see it.",
    "plugins": "List plugins, and show a component's options.",
}


class Verbs(click.Group):
    """A group that knows its commands' names and first lines without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"corecompress.cli.{name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            import difflib

            close = difflib.get_close_matches(args[0], VERBS, n=1)
            hint = f" Did you mean '{close[0]}'?" if close else ""
            ctx.fail(f"no command '{args[0]}'.{hint} Commands: {', '.join(VERBS)}.")
        return super().resolve_command(ctx, args)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="corecompress", message="corecompress %(version)s")
@click.option("--plugin-file", multiple=True, metavar="FILE", help="Load this Python file as a plugin, too.")
@click.option("--allow-plugin", multiple=True, metavar="NAME", help="Load only these plugins (distributions).")
@click.option("--block-plugin", multiple=True, metavar="NAME", help="Do not load this plugin (distribution).")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(
    plugin_file: tuple[str, ...], allow_plugin: tuple[str, ...], block_plugin: tuple[str, ...], debug: bool
) -> None:
    """Make model checkpoints smaller, with strategies that come as plugins, and say what it cost.

    SRC is a checkpoint's folder, a Hugging Face hub id, or `demo` (all-MiniLM-L6-v2).

    Exit codes: 0 done; 1 a check did not hold; 2 bad usage or bad input.
    """
    from corecompress import plugins

    plugins.choose(plugins.Choice(allow_plugin or None, block_plugin, plugin_file))


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; errors are one line, and an exit code that tells their kind."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    try:
        result: Any = cli.main(arguments, standalone_mode=False)
        sys.exit(result if isinstance(result, int) else 0)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _say("interrupted; if a run was under way, --resume goes on with it")
        sys.exit(130)
    except click.ClickException as problem:
        if debug:
            raise
        usage = problem.ctx.command_path if isinstance(problem, click.UsageError) and problem.ctx else ""
        _say(problem.format_message() + (f" (see `{usage} --help`)" if usage else ""))
        sys.exit(2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as problem:
        from corecompress.errors import CorecompressError

        if debug:
            raise
        if isinstance(problem, CorecompressError):
            _say(str(problem))
        elif isinstance(problem, MemoryError):
            _say("out of memory; try --jobs 1, or --max-memory")
        elif isinstance(problem, OSError):
            _say(f"{problem.filename or 'a file'}: {problem.strerror or problem}")
        else:
            _say(f"a bug: {type(problem).__name__}: {problem}; run it again with --debug, and report what it prints")
        sys.exit(2)


def _say(line: str) -> None:
    click.echo("corecompress: " + " ".join(line.split()), err=True)
