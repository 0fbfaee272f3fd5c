"""corecompress plugins [list | show NAME]"""

from __future__ import annotations

import json

import click

from corecompress.cli import common


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
    """Show the component NAME: its options with type, default and meaning."""
    from corecompress.components import Kind
    from corecompress.plugins import registry
    from corecompress.report import tables

    common.warn_unknown_plugins()
    found = registry().find(name)
    if not found:
        kinds: list[Kind] = ["compressor", "prior", "encoder", "data"]
        registry().get(next((kind for kind in kinds if registry().names(kind)), "compressor"), name)
    targets = [(provided, provided.load()) for provided in found]
    if as_json:
        click.echo(json.dumps([tables.component_json(p, t) for p, t in targets], indent=1, ensure_ascii=False))
    else:
        for provided, target in targets:
            tables.show(tables.component_table(provided, target))


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
