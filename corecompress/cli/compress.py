"""corecompress compress SRC -o OUT -r RECIPE"""

from __future__ import annotations

import time
from typing import Any

import click

from corecompress.cli import common


@click.command()
@click.argument("src")
@click.option("--out", "-o", required=True, metavar="OUT", help="Folder to write; it appears when all of it is there.")
@common.option_recipe
@click.option("--data", metavar="SPEC", help="Calibration data, NAME:SOURCE, for example text:corpus.txt.")
@common.option_seed
@click.option(
    "--shard-size", type=common.Size(), default="5GB", show_default=True, metavar="S", help="Largest payload file."
)
@click.option(
    "--max-size", type=common.Size(), metavar="S", help="Search the bits for a folder of at most S, e.g. 40MB."
)
@click.option(
    "--max-kl",
    type=click.FloatRange(0, min_open=True),
    metavar="KL",
    help="Search the bits for this KL on --data, in nats.",
)
@click.option(
    "--target-loss",
    type=click.FloatRange(0, min_open=True),
    metavar="X",
    help="Stop training (distill) when the loss on the evaluation split is X.",
)
@click.option("--cache", metavar="DIR", help="Keep calibration there, for other runs on the same SRC and data.")
@click.option("--resume", is_flag=True, help="Go on with a run that was killed.")
@click.option("--no-evaluate", is_flag=True, help="With --data: do not measure what a lossy recipe cost.")
@click.option("--push-to-hub", "repo_id", metavar="ORG/NAME", help="Upload OUT to the Hugging Face hub afterwards.")
@click.option("--private", is_flag=True, help="Make a repository that --push-to-hub creates private.")
@common.option_force
@common.option_jobs
@common.option_memory
@common.option_json
@common.option_quiet
def command(
    src: str,
    out: str,
    shard_size: int,
    no_evaluate: bool,
    repo_id: str | None,
    private: bool,
    as_json: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Make the checkpoint SRC smaller and write it to OUT, which plain transformers loads.

    SRC is a folder, a hub id (org/name or org/name@revision) or `demo`.

    \b
    corecompress compress demo -o minilm-small
    corecompress compress ./my-model -o my-model-small -r lossless --max-memory 1.5GB
    """
    from pathlib import Path

    from corecompress import api
    from corecompress.push import check_push, push
    from corecompress.ranks import is_follower
    from corecompress.report.tables import compressed_table

    common.warn_unknown_plugins()
    if repo_id is not None:
        check_push(repo_id)
    begun = time.perf_counter()
    with common.progress(quiet or as_json) as progress:
        summary = api.compress(
            src, out, shard_bytes=shard_size, evaluated=not no_evaluate, progress=progress, **settings
        )
    common.emit(summary, compressed_table, as_json, quiet, seconds=round(time.perf_counter() - begun, 3))
    if repo_id is not None and not is_follower():
        address = push(Path(out), repo_id, private)
        if not (as_json or quiet):
            click.echo(f"pushed: {address}")
