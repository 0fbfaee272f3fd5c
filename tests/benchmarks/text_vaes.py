"""Text VAEs beside each other on one corpus: encoders, priors, and latents drawn by each prior.

    pip install sacrebleu rapidfuzz
    python tests/benchmarks/text_vaes.py TEXT -o DIR [--seeds 0 1 2] [--steps 1500] [--length 12] [--vocabulary 2000] [--hidden 128]

TEXT: a sentence a line; `tests/benchmarks/austen.py` makes the project's. Every fit is kept in DIR, so a killed run goes on.
The control `gat(window=0)` hears no neighbour: a network for each position alone. BLEU (0 to 100) and the edit distance
(words, over the length of the longer) are between sentences of the evaluation split and what comes back when the mean of
the posterior alone is told. Latents: Fréchet distance (of k numbers) between those of the evaluation split and as many
draws of N(0, I), of a Gaussian with their mean and covariance, and of the `gan`; the floor is that of one half of the
split against the other. Reverse perplexity: of the evaluation split's sentences, to a language model that has learned
from as many sentences as the training split has, made of those latents. Writes table.md and results.json.
"""

import argparse
import json
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import sacrebleu
import torch
from judges import frechet, reverse_perplexity
from measuring import markdown
from rapidfuzz.distance import Levenshtein

import corecompress
from corecompress.generation import open_fitted

ENCODERS = ("lstm", "gat", "gat(window=0)", "lstm(annealing=none, pretrain=0, free_bits=0, word_dropout=0)")
PRIORS = ("gaussian", "hadamard", "laplace", "gan")
UNKNOWN = "<unk>"
"""Which `generate` never writes, so sentences with it count on neither side."""
BATCHES = 8
"""Of 64 sentences of the evaluation split, whose reconstructions are compared."""
SHOWN = {
    "-log-likelihood, 32 importance weights (nats a sample)": "−ln p, nats",
    "the same, bits a value": "bits a token",
    "perplexity": "perplexity",
    "rate (nats a sample)": "rate, nats",
    "active units": "active units",
    "tokens that come back": "tokens back",
    "sentences that come back whole": "whole",
    "BLEU": "BLEU",
    "edit distance": "edit distance",
    "parameters": "parameters",
}


def with_options(encoder: str, more: str) -> str:
    name, _, rest = encoder.partition("(")
    return f"{name}({', '.join(filter(None, (rest.rstrip(')'), more)))})"


def fitted(asked: argparse.Namespace, data: str, encoder: str, prior: str, seed: int) -> Path:
    spec = with_options(
        encoder, f"steps={asked.steps}, hidden={asked.hidden}, embedding={asked.hidden // 2}, length={asked.length}"
    )
    folder = asked.out / f"{encoder}-{prior}-{seed}".replace("/", "-")
    if not folder.exists():
        corecompress.fit(data, spec, prior, folder, seed=seed, resume=True)
    return folder


def figures_of(folder: Path, data: str) -> dict[str, Any]:
    """What the fit said, perplexity, and how near the reconstructions of a few hundred sentences are."""
    found = json.loads((folder / "encoder.json").read_text())["figures"]
    encoder = open_fitted(folder)
    batches = islice(corecompress.open_data(data).batches(0, "evaluation"), BATCHES)
    pairs = [(one.text, other.text) for batch in batches for one, other in encoder.reconstruct(batch)]
    originals, made = zip(*pairs, strict=True)
    distances = [Levenshtein.normalized_distance(one.split(), other.split()) for one, other in pairs]
    return {
        **found,
        "perplexity": 2 ** found["the same, bits a value"],
        "BLEU": sacrebleu.corpus_bleu(list(made), [list(originals)], tokenize="none", force=True).score,
        "edit distance": float(np.mean(distances)),
    }


def row(found: list[dict[str, Any]]) -> dict[str, str]:
    """Means and deviations over seeds."""
    shown = {}
    for name, short in SHOWN.items():
        values = [figures[name] for figures in found]
        if isinstance(values[0], str):
            shown[short] = " / ".join(sorted(set(values)))
        else:
            spread = f" ± {np.std(values, ddof=1):.2g}" if len(values) > 1 and short != "parameters" else ""
            shown[short] = f"{np.mean(values):,.4g}{spread}"
    return shown


def real_latents(encoder: Any, data: str, split: str, seed: int) -> tuple[np.ndarray, list[str]]:
    """(a draw of each sentence's posterior [n, k], in an order of the seed's; the sentences) of a split."""
    torch.manual_seed(seed)
    parts, sentences = [], []
    with torch.no_grad():
        for batch in corecompress.open_data(data).batches(0, split):
            inputs = encoder.take(batch)
            mean, log_deviation = encoder.model.posterior(inputs)
            parts.append(mean + log_deviation.exp() * torch.randn_like(mean))
            sentences += [sample.text for sample in encoder.originals(inputs)]
    real = torch.cat(parts).numpy().astype(np.float64)
    return real[np.random.default_rng(seed).permutation(len(real))], sentences


def draws_of(encoder: Any, real: np.ndarray, n: int, seed: int) -> dict[str, np.ndarray]:
    """n latents of each source; matched: to the real ones' mean and covariance."""
    rng = np.random.default_rng(seed + 1)
    matched = rng.multivariate_normal(real.mean(0), np.cov(real.T), n)
    return {
        "N(0, I)": rng.standard_normal((n, real.shape[1])),
        "matched Gaussian": matched,
        "gan": encoder._draw(n, seed).numpy().astype(np.float64),
    }


def latents_table(folder: Path, data: str, seed: int) -> dict[str, float]:
    """Fréchet distances of draws to the evaluation split's latents (draws of the posterior)."""
    encoder = open_fitted(folder)
    real, _ = real_latents(encoder, data, "evaluation", seed)
    half = len(real) // 2
    found = {"floor": frechet(real[:half], real[half : 2 * half])}
    for name, drawn in draws_of(encoder, real[:half], half, seed).items():
        found[name] = frechet(real[half : 2 * half], drawn)
    return found


def sentences_table(folder: Path, data: str, seed: int) -> dict[str, float]:
    """Reverse perplexities of sentences made of such draws; floor: of the training split's own."""
    encoder = open_fitted(folder)
    real, learned = real_latents(encoder, data, "training", seed)
    _, held = real_latents(encoder, data, "evaluation", seed)
    held, learned = ([sentence for sentence in some if UNKNOWN not in sentence] for some in (held, learned))
    sources = {"floor": learned}
    for name, drawn in draws_of(encoder, real, len(learned), seed).items():
        latents = torch.from_numpy(drawn.astype(np.float32))
        sources[name] = [sample.text for sample in encoder.show(encoder.sample(latents, seed))]
    words = sorted({word for some in (held, *sources.values()) for sentence in some for word in sentence.split()})
    vocabulary = {word: number for number, word in enumerate(words, 1)}
    return {name: reverse_perplexity(some, held, vocabulary) for name, some in sources.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--length", type=int, default=12)
    parser.add_argument("--vocabulary", type=int, default=2000)
    parser.add_argument(
        "--hidden", type=int, default=128, help="width of the LSTMs or nodes; word vectors have half of it"
    )
    parser.add_argument("--encoders", nargs="*", default=ENCODERS)
    parser.add_argument("--priors", nargs="*", default=PRIORS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    asked.out.mkdir(parents=True, exist_ok=True)
    options = f"vocabulary={asked.vocabulary}, length={asked.length}, calibration=0.1, evaluation=0.1, batch=64"
    data = f"text(form=sentences, tokenizer=words, document=line, lowercase=true, {options}):{asked.text}"
    pairs = [(encoder, asked.priors[0]) for encoder in asked.encoders]
    pairs += [(asked.encoders[0], prior) for prior in asked.priors[1:]]
    rows = {}
    for encoder, prior in pairs:
        folders = [fitted(asked, data, encoder, prior, seed) for seed in asked.seeds]
        rows[f"{encoder}, {prior}"] = row([figures_of(folder, data) for folder in folders])
    lines = markdown(["", *SHOWN.values()], [[name, *found.values()] for name, found in rows.items()])
    drawn: dict[str, dict[int, dict[str, float]]] = {"Fréchet distance of latents": {}, "reverse perplexity": {}}
    for seed in asked.seeds if "gan" in asked.priors else ():
        folder = fitted(asked, data, asked.encoders[0], "gan", seed)
        for (what, kept), table in zip(drawn.items(), (latents_table, sentences_table), strict=True):
            kept[seed] = table(folder, data, seed)
            shown = ", ".join(f"{name} {value:.3f}" for name, value in kept[seed].items())
            lines += ["", f"{what}, seed {seed}: {shown}"]
    (asked.out / "results.json").write_text(json.dumps({"data": data, "rows": rows, "drawn": drawn}, indent=1))
    (asked.out / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
