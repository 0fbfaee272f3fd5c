"""corecompress verify OUT [--against SRC]"""

from __future__ import annotations

import click

from corecompress.cli import common


@click.command()
@click.argument("folder", metavar="OUT")
@click.option("--against", metavar="SRC", help="Compare every tensor with this checkpoint, too.")
@common.option_jobs
@common.option_json
@common.option_quiet
def command(folder: str, against: str | None, jobs: int | None, as_json: bool, quiet: bool) -> int:
    """Check every file and every tensor of the compressed folder OUT. Exit code 1 when something is not as recorded."""
    from corecompress import api
    from corecompress.report.tables import verified_table

    common.warn_unknown_plugins()
    with common.progress(quiet or as_json) as progress:
        verified = api.verify(folder, against, jobs=jobs, progress=progress)
    common.emit(verified, verified_table, as_json, quiet and verified.ok)
    return 0 if verified.ok else 1
