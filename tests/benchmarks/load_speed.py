"""Loading a compressed folder against the plain checkpoint: from_pretrained in one process, and whole processes.

    python tests/benchmarks/load_speed.py CHECKPOINT… [--recipe lossless] [--runs 9]

CHECKPOINT is a folder or `demo` (the default). Plain and compressed alternate; medians of wall and processor seconds.
Plain loading maps the file and reads nothing of it before the weights are used, so each run sums every parameter once:
both then have all weights in memory.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import corecompress
from corecompress.checkpoint import open_checkpoint

os.environ["HF_HUB_OFFLINE"] = "1"

WHOLE = """
import sys, transformers
transformers.logging.set_verbosity_error()
model = getattr(transformers, sys.argv[1]).from_pretrained(sys.argv[2])
print(sum(float(p.detach().float().sum()) for p in model.parameters()))
"""


def in_process(auto: str, folder: Path) -> tuple[float, float, float]:
    """Wall seconds of from_pretrained; wall and processor seconds of it and of touching every weight."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    before, begun = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    model = getattr(transformers, auto).from_pretrained(folder)
    loaded = time.perf_counter() - begun
    for parameter in model.parameters():
        parameter.detach().view(-1)[::1024].sum().item()  # touches every page
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return loaded, time.perf_counter() - begun, cpu


def whole(auto: str, folder: Path) -> tuple[float]:
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", WHOLE, auto, str(folder)], check=True, capture_output=True)
    return (time.perf_counter() - begun,)


def report(name: str, runs: list[tuple[list[float], list[float]]], what: list[str]) -> None:
    for number, label in enumerate(what):
        plain, packed = ([pair[side][number] for pair in runs] for side in (0, 1))
        ratio = statistics.median(b / a for a, b in zip(plain, packed, strict=True))
        print(f"{name:24} {label:34} {statistics.median(plain):8.3f} {statistics.median(packed):10.3f} {ratio:8.2f}")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("checkpoint", nargs="*", default=["demo"])
    arguments.add_argument("--recipe", default="lossless")
    arguments.add_argument("--runs", type=int, default=9)
    given = arguments.parse_args()
    print(f"{'checkpoint':24} {'seconds (medians)':34} {'plain':>8} {'compressed':>10} {'ratio':>8}")
    for source in given.checkpoint:
        checkpoint = open_checkpoint(source)
        architecture = (checkpoint.config.get("architectures") or [""])[0]
        auto = "AutoModelForCausalLM" if architecture.endswith("ForCausalLM") else "AutoModel"
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch) / "out"
            corecompress.compress(source, out, recipe=given.recipe)
            plain = checkpoint.folder
            in_process(auto, plain), in_process(auto, out)  # imports, compiled code
            runs = [(list(in_process(auto, plain)), list(in_process(auto, out))) for _ in range(given.runs)]
            labels = ["from_pretrained", "from_pretrained and every page", "the same, processor seconds"]
            report(plain.name, runs, labels)
            runs = [(list(whole(auto, plain)), list(whole(auto, out))) for _ in range(max(3, given.runs // 3))]
            report(plain.name, runs, ["whole process, every weight summed"])
