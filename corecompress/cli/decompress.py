"""corecompress decompress OUT -o DENSE"""

from __future__ import annotations

import click

from corecompress.cli import common


@click.command()
@click.argument("folder", metavar="OUT")
@click.option("--out", "-o", required=True, metavar="DENSE", help="Folder to write the ordinary checkpoint to.")
@common.option_force
@common.option_jobs
@common.option_memory
@common.option_json
@common.option_quiet
def command(
    folder: str, out: str, force: bool, jobs: int | None, max_memory: int | None, as_json: bool, quiet: bool
) -> None:
    """Write the compressed folder OUT as an ordinary checkpoint: the original's names, dtypes, shards and files."""
    from corecompress import api
    from corecompress.report.tables import decompressed_line

    common.warn_unknown_plugins()
    with common.progress(quiet or as_json) as progress:
        summary = api.decompress(folder, out, force=force, jobs=jobs, max_memory=max_memory, progress=progress)
    common.emit(summary, decompressed_line, as_json, quiet)
