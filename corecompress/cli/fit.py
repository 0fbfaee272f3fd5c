"""corecompress fit --data SPEC --encoder SPEC --prior SPEC -o MODEL"""

from __future__ import annotations

from typing import Any

import click

from corecompress.cli import common


@click.command()
@common.option_data
@click.option("--encoder", required=True, metavar="SPEC", help="Encoder, for example 'mlp-vae(bits=4)'.")
@click.option("--prior", required=True, metavar="SPEC", help="Prior of its latents, for example factorized.")
@click.option("--out", "-o", required=True, metavar="MODEL", help="Folder to write; it appears when it is trained.")
@click.option(
    "--target-loss",
    type=float,
    metavar="X",
    help="Stop at this loss of the evaluation split (bits a token, or a pixel); an error where it is not reached.",
)
@click.option("--max-minutes", type=click.FloatRange(0, min_open=True), metavar="M", help="Stop after so long.")
@common.option_seed
@click.option("--resume", is_flag=True, help="Go on with a training that was killed.")
@click.option("--force", is_flag=True, help="Replace MODEL if it exists, and an unfinished run.")
@common.option_json
@common.option_quiet
def command(data: str, encoder: str, prior: str, out: str, as_json: bool, quiet: bool, **settings: Any) -> None:
    """Train an encoder and its prior on data, by rate and distortion, and write both to MODEL.

    Of weights it makes a codec that recipes name: fitted on one checkpoint, used on another. Of text or images it makes
    a generative model, an ordinary checkpoint for generate, reconstruct, compress and evaluate.

    \b
    corecompress fit --data captioned:digits --encoder text2image --prior gaussian -o painter
    corecompress fit --data weights:./model --encoder 'mlp-vae(bits=4)' --prior factorized -o codec
    corecompress compress ./another -o small -r 'vae(bits=4, encoder=mlp-vae(file=codec))'
    """
    from corecompress import api
    from corecompress.report.tables import fitted_table

    common.warn_unknown_plugins()
    with common.progress(quiet or as_json) as progress:
        found = api.fit(data, encoder, prior, out, progress=progress, **settings)
    common.emit(found, fitted_table, as_json, quiet)
