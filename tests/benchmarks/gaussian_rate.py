"""How near the quantisers of `vae` come to the rate-distortion bound of a Gaussian, in bytes that were really coded.

    python tests/benchmarks/gaussian_rate.py [-o DIR] [--samples 200000] [--rates BITS…] [--seeds 0 1 2]
    python tests/benchmarks/gaussian_rate.py --decode CHECKPOINT…       # decoding speed against states, real tensors

A checkpoint of one matrix of N(0, 1), columns of 1,000, is compressed with `vae(encoder=identity, quantizer=…)` and
restored: rate = 8 × bytes of the tensor's payload / samples, D = mean squared error of what was restored, gap = rate −
½·log2(1/D) bits above D = 2^(−2R). What a folder has once (the coder's frequency tables) stands in a column of its own:
it is a constant, whatever the number of weights. Writes DIR/gaussian_rate.png, gaussian_rate.md and .json.

Published points beside the curves, all fixed-rate at 2 bits on N(0, 1): QTIP's trellis of 2^16 states, mean squared
error 0.069, and QuIP#'s E8P lattice codebook, 0.089 (A. Tseng et al., "QTIP", arXiv:2406.11235, table 1; A. Tseng et
al., "QuIP#", arXiv:2402.04396); Lloyd-Max, 0.1175 (J. Max, "Quantizing for minimum distortion", 1960, table I).
"""

import argparse
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from decode_speed import speeds
from measuring import markdown

import corecompress
from corecompress.artifact import STATE, Artifact
from corecompress.components import TensorInfo
from corecompress.safetensors_file import header_bytes

QUANTISERS = ("scalar", *(f"trellis(states={n})" for n in (4, 8, 16, 32, 64)))
RATES = (1.3, 1.65, 2.0, 2.5, 3.0, 3.7, 4.4)
ASKED = {"trellis(states=8)": 0.09, "trellis(states=32)": 0.06}
PUBLISHED = {"Lloyd-Max": (2.0, 0.1175), "QuIP# E8P": (2.0, 0.089), "QTIP": (2.0, 0.069)}
ROWS = 1000
NAME = "layer.weight"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, default=Path("."))
    parser.add_argument("--samples", type=int, default=200_000)
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--prior", default="hierarchical")
    parser.add_argument("--decode", nargs="+", metavar="CHECKPOINT")
    parser.add_argument("--bits", type=float, default=3.0, help="of --decode")
    given = parser.parse_args()
    if given.decode:
        for source in given.decode:
            decode(source, given.bits)
        return
    given.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[dict[str, float]]] = {}
    for quantiser in QUANTISERS:
        found[quantiser] = [point(quantiser, given, rate) for rate in given.rates]
        print("\n".join(lines({quantiser: found[quantiser]}, head=quantiser == QUANTISERS[0])), flush=True)
    (given.out / "gaussian_rate.json").write_text(json.dumps(found, indent=1))
    (given.out / "gaussian_rate.md").write_text("\n".join(lines(found)) + "\n")
    draw(found, given.out / "gaussian_rate.png")
    for quantiser, most in ASKED.items():
        worst = max(found[quantiser], key=lambda p: p["gap"])
        print(f"{quantiser}: at most {worst['gap']:.4f} bit (at {worst['rate']:.2f}); asked is {most}")


def point(quantiser: str, given: argparse.Namespace, rate: float) -> dict[str, float]:
    """About that rate, mean over the seeds."""
    step = 2.0 ** (1.05 - rate)  # what entropy at a high rate says, mended once
    first = coded(quantiser, given.prior, given.samples, step, given.seeds[0])
    step *= 2.0 ** (first["rate"] - rate)
    each = [coded(quantiser, given.prior, given.samples, step, seed) for seed in given.seeds]
    return {key: float(np.mean([one[key] for one in each])) for key in each[0]}


def coded(quantiser: str, prior: str, samples: int, step: float, seed: int) -> dict[str, float]:
    """Rate, distortion and gap of one matrix."""
    columns = max(1, round(samples / ROWS))
    x = np.random.default_rng(seed).standard_normal((ROWS, columns), np.float32)
    with tempfile.TemporaryDirectory() as scratch:
        source, out = Path(scratch, "source"), Path(scratch, "out")
        source.mkdir()
        (source / "config.json").write_text('{"architectures": ["BertModel"], "model_type": "bert"}')
        info = TensorInfo(NAME, "F32", x.shape)
        (source / "model.safetensors").write_bytes(header_bytes([info], {"format": "pt"}) + x.tobytes())
        recipe = f"vae(step={step:.6f}, encoder=identity, prior={prior}, quantizer={quantiser})"
        corecompress.compress(source, out, recipe)
        artifact = Artifact(out)
        restored = artifact.read(NAME).data.view("<f4").reshape(x.shape)
        payload = artifact.records[NAME].bytes
        tables = sum(s.info.nbytes for name, s in artifact.stored.items() if name.startswith(STATE.format("")))
    error = float(np.mean((restored.astype(np.float64) - x) ** 2) / np.mean(x.astype(np.float64) ** 2))
    bits = 8 * payload / x.size
    gap = bits - 0.5 * math.log2(1 / error)
    return {"rate": bits, "distortion": error, "gap": gap, "tables": 8 * tables / x.size}


def lines(found: dict[str, list[dict[str, float]]], head: bool = True) -> list[str]:
    """The table."""
    rows = [
        [name, f"{p['rate']:.3f}", f"{p['distortion']:.5f}", f"{p['gap']:.4f}", f"{p['tables']:.4f}"]
        for name, points in found.items()
        for p in points
    ]
    table = markdown(["quantiser", "bits a sample", "D / σ²", "gap, bits", "tables, bits a sample"], rows)
    return table if head else table[2:]


def draw(found: dict[str, list[dict[str, float]]], path: Path) -> None:
    from matplotlib.figure import Figure

    from corecompress.report.plots import COLOURS, DPI, MARKERS

    figure = Figure(figsize=(13, 5.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, of in ((left, lambda rate, d: 10 * math.log10(1 / d)), (right, lambda r, d: r - 0.5 * math.log2(1 / d))):
        for k, (name, points) in enumerate(found.items()):
            look: dict[str, Any] = {"color": COLOURS[k % len(COLOURS)], "marker": MARKERS[k], "markersize": 6}
            ordered = sorted((p["rate"], of(p["rate"], p["distortion"])) for p in points)
            axes.plot([x for x, _ in ordered], [y for _, y in ordered], label=name, linewidth=1.8, **look)
        for k, (name, (rate, d)) in enumerate(PUBLISHED.items()):
            axes.plot(rate, of(rate, d), linestyle="", marker="xP*"[k], markersize=12, color="black", zorder=5)
            axes.annotate(name, (rate, of(rate, d)), (9, 4), textcoords="offset points", fontsize=11)
        axes.grid(True, color="#e4e4e4", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlabel("bits a sample, coded bytes", fontsize=12)
    ends = [1.2, 4.5]
    left.plot(
        ends, [20 * rate * math.log10(2) for rate in ends], color="black", linewidth=1.2, label="bound D = 2^(−2R)"
    )
    left.set_ylabel("signal to noise, dB", fontsize=12)
    right.axhline(0, color="black", linewidth=1.2, label="bound")
    right.set_ylabel("bits above the rate-distortion bound", fontsize=12)
    right.legend(fontsize=11, frameon=False, loc="upper right")
    left.legend(fontsize=11, frameon=False, loc="upper left")
    figure.suptitle("N(0, 1) through the codec: quantiser, entropy coder, real bytes", fontsize=14)
    figure.savefig(path, dpi=DPI)


def decode(source: str, bits: float) -> None:
    """Decoding speed against the number of states, on the tensors of a checkpoint, data-free."""
    with tempfile.TemporaryDirectory() as scratch:
        folders = []
        for quantiser in QUANTISERS:
            folders.append(Path(scratch, quantiser))
            corecompress.compress(source, folders[-1], f"vae(bits={bits}, quantizer={quantiser})")
        print(f"{source}, {bits:g} bits a weight, decoding on one core:")
        for quantiser, speed in zip(QUANTISERS, speeds(folders, 5), strict=True):
            print(f"  {quantiser:20} {speed:7.1f} million weights a second", flush=True)


if __name__ == "__main__":
    main()
