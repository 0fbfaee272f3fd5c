"""corecompress plan SRC -r RECIPE"""

from __future__ import annotations

from typing import Any

import click

from corecompress.cli import common


@click.command()
@click.argument("src")
@common.option_recipe
@click.option("--data", metavar="SPEC", help="Data that a stage which trains would train on.")
@common.option_seed
@common.option_jobs
@common.option_memory
@common.option_json
def command(src: str, recipe: str, as_json: bool, **settings: Any) -> None:
    """Show which rule of the recipe takes which tensor of SRC, and estimate bytes, time and memory. Writes nothing."""
    from corecompress import api
    from corecompress.report.tables import plan_table

    common.warn_unknown_plugins()
    with common.progress(as_json) as progress:
        found = api.plan(src, recipe, progress=progress, **settings)
    common.emit(found, plan_table, as_json)
