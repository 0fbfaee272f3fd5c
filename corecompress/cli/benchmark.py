"""corecompress benchmark SRC OUT"""

from __future__ import annotations

import click

from corecompress.cli import common


@click.command()
@click.argument("src")
@click.argument("out")
@click.option("--runs", type=click.IntRange(1), default=3, show_default=True, help="Fresh processes of each side.")
@click.option("--threads", type=click.IntRange(1), metavar="N", help="Threads of both sides (default: one a core).")
@click.option("--device", metavar="NAME", help="cpu, cuda, cuda:1, … (default: cuda where there is one).")
@common.option_json
@common.option_quiet
def command(src: str, out: str, runs: int, threads: int | None, device: str | None, as_json: bool, quiet: bool) -> None:
    """Time OUT against SRC in fresh processes, alternating: loading, first token or sentence, throughput, memory.

    Each run loads the model and warms it up before it measures. Ratios are medians of OUT over medians of SRC.

    \b
    corecompress benchmark demo minilm-small
    """
    from corecompress import api
    from corecompress.report.tables import benchmark_table

    common.warn_unknown_plugins()
    with common.progress(quiet or as_json) as progress:
        found = api.benchmark(src, out, runs=runs, threads=threads, device=device, progress=progress)
    common.emit(found, benchmark_table, as_json, quiet)
