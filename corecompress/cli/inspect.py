"""corecompress inspect PATH"""

from __future__ import annotations

import click

from corecompress.cli import common


@click.command()
@click.argument("path")
@common.option_json
def command(path: str, as_json: bool) -> None:
    """Show what is in PATH, a checkpoint or a compressed folder, tensor by tensor. Nothing but headers is read."""
    from corecompress import api
    from corecompress.report.tables import inspect_table

    common.emit(api.inspect(path), inspect_table, as_json)
