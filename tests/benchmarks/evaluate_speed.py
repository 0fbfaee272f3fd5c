"""`corecompress evaluate` against the two bare forward passes that it can't do without.

    python tests/benchmarks/evaluate_speed.py CHECKPOINT TEXT [--windows 8] [--length 512] [--runs 3]

The peer is one script that loads each side in a process of its own, runs as many windows through it and keeps nothing:
no outputs on disk, no figures. Both are whole processes, imports included, and alternate; medians of ratios, to the
whole script and to the seconds that it spends in the model alone.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

BARE = """
import sys, time, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, text, windows, length = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
ids = AutoTokenizer.from_pretrained(folder)(open(text, encoding="utf-8").read())["input_ids"]
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
begun = time.perf_counter()
with torch.inference_mode():
    for n in range(windows):
        model(input_ids=torch.tensor([ids[n * length : (n + 1) * length]]), use_cache=False)
print(time.perf_counter() - begun)
"""


CLI = "from corecompress.cli import main; main()"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    side = [sys.executable, "-c", BARE, options.checkpoint, options.text, options.windows, options.length]
    spec = f"text(length={options.length}):{options.text}"
    # Another seed each run: nothing of an earlier run's outputs is found in the cache.
    whole = [sys.executable, "-c", CLI, "evaluate", options.checkpoint, options.checkpoint, "--data", spec]
    whole += ["--samples", options.windows, "--json", "--seed"]
    found: list[tuple[float, float, float]] = []
    for run in range(options.runs):
        forward, bare = (sum(parts) for parts in zip(*(_timed(side, environment) for _ in range(2)), strict=True))
        _, taken = _timed([*whole, 1000 + run + int(time.time()) % 100000], environment)
        found.append((taken, bare, forward))
        print(f"evaluate {taken:6.2f} s, bare scripts {bare:6.2f} s, the model alone {forward:6.2f} s", flush=True)
    for number, name in ((1, "two bare scripts"), (2, "the two forward passes alone")):
        ratio = statistics.median(row[0] / row[number] for row in found)
        print(f"evaluate ÷ {name}, {options.windows} windows of {options.length}: {ratio:.2f}")


def _timed(command: list[object], environment: dict[str, str]) -> tuple[float, float]:
    """(what the script says that it spent in the model, wall seconds of the process)."""
    begun = time.perf_counter()
    words = [str(part) for part in command]
    said = subprocess.run(words, check=True, capture_output=True, env=environment, text=True).stdout
    model = said.strip().splitlines()[-1] if CLI not in words else "0"
    return float(model), time.perf_counter() - begun


if __name__ == "__main__":
    main()
