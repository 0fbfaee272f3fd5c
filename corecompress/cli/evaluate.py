"""corecompress evaluate SRC OUT --data SPEC"""

from __future__ import annotations

import click

from corecompress.cli import common


@click.command()
@click.argument("src")
@click.argument("out")
@common.option_data
@click.option("--metric", "metrics", multiple=True, metavar="NAME", help="Show only this (kl, cosine, …); repeatable.")
@click.option("--tasks", metavar="NAMES", help="Tasks of lm-evaluation-harness too, with commas between.")
@click.option("--card", is_flag=True, help="Write the figures into the model card (README.md) of OUT as well.")
@common.option_samples
@common.option_compute
@common.option_json
@common.option_quiet
def command(
    src: str,
    out: str,
    data: str,
    metrics: tuple[str, ...],
    tasks: str | None,
    card: bool,
    samples: int | None,
    seed: int,
    dtype: str,
    device: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Hold the checkpoint OUT against its original SRC, on text or images that it was not made with.

    Causal, masked and encoder-decoder language models: perplexity, KL per token, agreement; sentence encoders: cosine,
    recall, rank correlation; image classifiers: KL and agreement; others: relative error of the outputs. Only the
    evaluation split of the data is used. ± is the standard error by bootstrap over documents.

    \b
    corecompress evaluate demo minilm-small --data text:corpus.txt
    corecompress evaluate ./model ./model-small --data 'text(split=order):corpus.txt' --samples 8 --json
    """
    from corecompress import api
    from corecompress.report.tables import evaluation_table

    common.warn_unknown_plugins()
    with common.progress(quiet or as_json) as progress:
        found = api.evaluate(
            src,
            out,
            data,
            samples=samples,
            metrics=metrics,
            card=card,
            tasks=tuple(filter(None, (tasks or "").split(","))),
            seed=seed,
            dtype=dtype,
            device=device,
            progress=progress,
        )
    common.emit(found, evaluation_table, as_json, quiet)
