"""Tasks of lm-evaluation-harness, where it is installed and its data can be had."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from corecompress.plugins import environment

RUN = """
import json, sys
import corecompress.hf.quantizer
import lm_eval
import torch
folder, device, *tasks = sys.argv[1:]
device = device or ("cuda" if torch.cuda.is_available() else "cpu")  # its own default is cuda
found = lm_eval.simple_evaluate(model="hf", model_args={"pretrained": folder}, tasks=tasks, device=device)
results = found["results"].items()
numbers = {task: {k: v for k, v in row.items() if isinstance(v, (int, float))} for task, row in results}
print("@@" + json.dumps(numbers))
"""


def run_tasks(source: Path, out: Path, tasks: tuple[str, ...], device: str | None) -> dict[str, Any]:
    """{task: {"metric": "original → compressed"}}, each side in a fresh process; what is missing otherwise."""
    if find_spec("lm_eval") is None:
        return {",".join(tasks): {"not run": "lm-evaluation-harness is not installed; pip install 'lm-eval[hf]'"}}
    sides = []
    for folder in (source, out):
        command = [sys.executable, "-c", RUN, str(folder), device or "", *tasks]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment())
        if done.returncode or "@@" not in done.stdout:
            said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            return {",".join(tasks): {"not run": f"{folder.name}: {said[:200]}"}}
        sides.append(json.loads(done.stdout.rpartition("@@")[2]))
    before, after = sides
    return {
        task: {name: f"{value:.4g} → {after[task][name]:.4g}" for name, value in row.items() if name in after[task]}
        for task, row in before.items()
        if task in after
    }
