"""corecompress plan SRC -r RECIPE"""

from __future__ import annotations

import click

from corecompress.cli import common


@click.command()
@click.argument("src")
@common.option_recipe
@common.option_jobs
@common.option_memory
@common.option_json
def command(src: str, recipe: str, jobs: int | None, max_memory: int | None, as_json: bool) -> None:
    """Show which rule of the recipe takes which tensor of SRC, and estimate bytes, time and memory. Writes nothing."""
    from corecompress import api
    from corecompress.report.tables import plan_table

    common.warn_unknown_plugins()
    common.emit(api.plan(src, recipe, jobs=jobs, max_memory=max_memory), plan_table, as_json)
