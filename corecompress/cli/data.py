"""corecompress data show SPEC"""

from __future__ import annotations

import json

import click

from corecompress.cli import common


@click.group()
def command() -> None:
    """Look at data as a model will see it."""


@command.command("show")
@click.argument("spec")
@click.option("--for", "checkpoint", metavar="SRC", help="The checkpoint that the data are for (its tokenizer).")
@common.option_json
def show_command(spec: str, checkpoint: str | None, as_json: bool) -> None:
    """Show what SPEC (NAME:SOURCE) holds: preparation, splits, lengths, vocabulary, and a few samples.

    \b
    corecompress data show text:corpus.txt --for demo
    corecompress data show 'text(clean=all, tokenizer=words):corpus.jsonl'
    """
    from corecompress import api
    from corecompress.report import tables

    common.warn_unknown_plugins()
    report, fingerprint = api.describe_data(spec, checkpoint)
    if as_json:
        click.echo(json.dumps({**tables.as_json(report), "fingerprint": fingerprint}, indent=1, ensure_ascii=False))
    else:
        tables.show(tables.data_table(report, fingerprint))
