"""corecompress compare SRC -r R1 -r R2 … --data SPEC -o DIR"""

from __future__ import annotations

import json
from typing import Any

import click

from corecompress.cli import common


@click.command()
@click.argument("src")
@click.option("--recipe", "-r", "recipes", multiple=True, metavar="RECIPE", help="A recipe to run; repeatable.")
@click.option(
    "--against", multiple=True, metavar="NAME=DIR", help="A folder made by another tool, put beside; repeatable."
)
@common.option_data
@click.option("--out", "-o", required=True, metavar="DIR", help="Folder for the report; runs are kept in DIR/runs.")
@common.option_samples
@common.option_compute
@common.option_jobs
@common.option_memory
@common.option_json
@common.option_quiet
def command(
    src: str,
    recipes: tuple[str, ...],
    against: tuple[str, ...],
    data: str,
    out: str,
    as_json: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Run several recipes on SRC, restore each from disk, and show bytes against quality.

    Writes report.json, report.md, report.html and pictures. What was measured before in DIR is not measured again; a
    killed run goes on. A row that fails says why and stops nothing.

    \b
    corecompress compare demo -r lossless -r 'vae(bits=4)' -r 'vae(bits=3)' --data text:corpus.txt -o comparison
    """
    from corecompress import api
    from corecompress.report.tables import comparison_table, show

    common.warn_unknown_plugins()
    folders: dict[str, Any] = {}
    for entry in against:
        name, sign, folder = entry.partition("=")
        if not (name and sign and folder):
            raise click.UsageError(f"--against '{entry}': write NAME=DIR")
        folders[name] = folder
    with common.progress(quiet or as_json) as progress:
        report = api.compare(src, recipes, out, data, against=folders, progress=progress, **settings)
    if as_json:
        click.echo(json.dumps(report, indent=1, ensure_ascii=False))
    elif not quiet:
        show(comparison_table(report, out))
