"""corecompress plugins [list | show NAME | check NAME | new NAME]"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from typing import TYPE_CHECKING

import click

from corecompress.cli import common

if TYPE_CHECKING:
    from corecompress.components import Kind


@click.group(invoke_without_command=True)
@common.option_json
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """List plugins: what they provide, where they come from, and what is wrong with one that doesn't work."""
    if ctx.invoked_subcommand is None:
        _list(as_json)


@command.command("list")
@common.option_json
def list_command(as_json: bool) -> None:
    """List every plugin."""
    _list(as_json)


@command.command("show")
@click.argument("name")
@common.option_json
def show_command(name: str, as_json: bool) -> None:
    """Show the component NAME, or all of the plugin NAME: options with type, default and meaning, and a command."""
    from corecompress.examples import command_of
    from corecompress.plugins import registry
    from corecompress.report import tables

    common.warn_unknown_plugins()
    found = registry().find(name)
    if not found:
        raise registry().unknown(name)
    targets = [(provided, provided.load()) for provided in found]
    if as_json:
        shown = [tables.component_json(p, t, command_of(p, registry())) for p, t in targets]
        click.echo(json.dumps(shown, indent=1, ensure_ascii=False))
    else:
        for provided, target in targets:
            tables.show(tables.component_table(provided, target, command_of(provided, registry())))


@command.command("check")
@click.argument("name")
@common.option_json
@click.pass_context
def check_command(ctx: click.Context, name: str, as_json: bool) -> None:
    """Run the conformance kit on NAME, a plugin (distribution) or a component: a line a check.

    Exit code 1 when one of them fails.
    """
    from corecompress.testing.runner import runs

    common.warn_unknown_plugins()
    outcomes = []
    for run in runs(name):
        outcomes.append(run.act())
        if not as_json:
            click.secho(str(outcomes[-1]), fg={"failed": "red", "waived": "yellow"}.get(outcomes[-1].status))
    count = Counter(outcome.status for outcome in outcomes)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(outcome) for outcome in outcomes], indent=1, ensure_ascii=False))
    else:
        click.echo(", ".join(f"{number} {status}" for status, number in count.items()))
    ctx.exit(1 if count["failed"] else 0)


@command.command("new")
@click.argument("name")
@click.option("--kind", type=click.Choice(["data", "encoder", "prior", "compressor"]), required=True)
@click.option("--out", "-o", metavar="DIR", help="Folder to write (default: NAME).")
def new_command(name: str, kind: Kind, out: str | None) -> None:
    """Write a plugin NAME to start from: a distribution that works, with tests, licence and CI.

    \b
    corecompress plugins new acme-half --kind compressor
    """
    from pathlib import Path

    from corecompress.scaffold import write_plugin

    common.warn_unknown_plugins()
    folder = Path(out or name)
    for path in write_plugin(name, kind, folder):
        click.echo(path)
    click.echo(f"next: pip install -e '{folder}[test]' && pytest {folder}")


def _list(as_json: bool) -> None:
    from corecompress.plugins import registry
    from corecompress.report import tables

    common.warn_unknown_plugins()
    plugins = registry().plugins
    if as_json:
        shown = [{**tables.as_json(plugin), "bundled": plugin.bundled} for plugin in plugins]
        click.echo(json.dumps(shown, indent=1, ensure_ascii=False))
    else:
        tables.show(tables.plugins_table(plugins))
