"""corecompress reconstruct MODEL --data SPEC -o FILE"""

from __future__ import annotations

from typing import Any

import click

from corecompress.cli import common


@click.command()
@click.argument("model")
@common.option_data
@click.option("--number", "-n", type=click.IntRange(1), default=32, show_default=True, help="Samples to show.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Which samples.")
@click.option("--out", "-o", required=True, metavar="FILE", help="Text file, or a PNG for images.")
@common.option_json
@common.option_quiet
def command(model: str, number: int, as_json: bool, quiet: bool, **settings: Any) -> None:
    """Write samples of the evaluation split beside what MODEL makes of them.

    \b
    corecompress reconstruct austen-vae --data text:austen.txt -o pairs.txt
    """
    from corecompress import api
    from corecompress.report.tables import written_table

    common.emit(api.reconstruct(model, n=number, **settings), written_table, as_json, quiet)
