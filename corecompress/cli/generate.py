"""corecompress generate MODEL [-n N] [--prompt TEXT] -o FILE|DIR"""

from __future__ import annotations

from typing import Any

import click

from corecompress.cli import common


@click.command()
@click.argument("model")
@click.option("--number", "-n", type=click.IntRange(1), default=16, show_default=True, help="Samples to draw.")
@click.option("--prompt", metavar="TEXT", help="What they should show: of models that were fitted on captions.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the draws.")
@click.option("--out", "-o", required=True, metavar="FILE|DIR", help="Text file, folder of images, or sheet.png.")
@common.option_json
@common.option_quiet
def command(model: str, number: int, as_json: bool, quiet: bool, **settings: Any) -> None:
    """Draw new samples from a MODEL that `corecompress fit` wrote, compressed or not.

    \b
    corecompress generate austen-vae -n 20 -o lines.txt
    corecompress generate digits --prompt "a handwritten seven" -n 16 -o sevens
    """
    from corecompress import api
    from corecompress.report.tables import written_table

    common.emit(api.generate(model, n=number, **settings), written_table, as_json, quiet)
