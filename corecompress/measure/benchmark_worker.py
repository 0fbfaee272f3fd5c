"""One measurement in a fresh process: python -m corecompress.measure.benchmark_worker FOLDER TASK THREADS [DEVICE]

Prints one line of JSON. Inputs are fixed numbers within the vocabulary; no tokenizer is needed.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

PROMPT, NEW, SENTENCE, SHORT = 128, 32, 128, 32
LEAST_SECONDS = 1.0


def main() -> None:
    """Load, warm up, measure, print."""
    folder, task, threads, device = sys.argv[1:]
    import torch
    import transformers
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    torch.set_num_threads(int(threads))
    config = json.loads((Path(folder) / "config.json").read_bytes())
    getattr(transformers, (config.get("architectures") or [""])[0], None)
    from corecompress.fitting import RECORD
    from corecompress.generation import open_fitted
    from corecompress.hf.load import load_model
    from corecompress.measure.outputs import auto_class

    fitted = (Path(folder) / RECORD).exists()
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    begun = time.perf_counter()
    if fitted:
        model: Any = open_fitted(Path(folder))
        where = torch.device("cpu")  # where `generate` draws
    else:
        model = load_model(Path(folder), auto_class(task, Path(folder)), dtype="auto").eval().to(where)
    _wait(where)
    found: dict[str, Any] = {"load": time.perf_counter() - begun, "device": str(where)}
    with torch.inference_mode():
        found |= _forward(where, lambda n, _: model.generate(n), 0, 0) if fitted else _time(model, task, where)
    scale = 1 if sys.platform == "darwin" else 1024
    found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e6
    if where.type == "cuda":
        found["device_peak"] = torch.cuda.max_memory_allocated(where) / 1e6
    print(json.dumps(found))


def _time(model: Any, task: str, where: Any) -> dict[str, Any]:
    if task in ("causal-lm", "seq2seq-lm"):
        return _generation(model, task, where)
    if task in ("sentence-encoder", "masked-lm"):
        return _forward(where, lambda n, length: model(**_tokens(model, n, length, where)), SHORT, SENTENCE)
    if task == "image-classifier":
        size = getattr(model.config, "image_size", None) or 224
        height, width = size if isinstance(size, list | tuple) else (size, size)
        channels = getattr(model.config, "num_channels", None) or 3
        import torch

        pixels = torch.zeros(8, channels, height, width, device=where, dtype=model.dtype)
        return _forward(where, lambda n, _: model(pixel_values=pixels[:n]), 0, 0)
    return {"note": "what its forward takes is not known here; only loading, memory and size were measured"}


def _tokens(model: Any, n: int, length: int, where: Any) -> dict[str, Any]:
    """The same ids every time: int64 [n, length]."""
    import torch

    config = getattr(model.config, "text_config", None) or model.config
    longest = getattr(config, "max_position_embeddings", None) or length
    ids = (torch.arange(n * length) * 7919 + 11) % max(2, config.vocab_size - 1)
    ids = ids.reshape(n, length)[:, : max(1, min(length, longest - NEW - 2))].to(where)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _generation(model: Any, task: str, where: Any) -> dict[str, Any]:
    """Time to the first token, then tokens a second of greedy decoding with a cache."""

    def generate(n: int, new: int) -> None:
        end = {"eos_token_id": None, "pad_token_id": 0}
        model.generate(
            **_tokens(model, n, PROMPT, where), max_new_tokens=new, min_new_tokens=new, do_sample=False, **end
        )

    generate(1, 2)
    first = {n: _seconds(where, partial(generate, n, 1)) for n in (1, 8)}
    whole = {n: _seconds(where, partial(generate, n, 1 + NEW)) for n in (1, 8)}
    rates = {f"throughput{n}": n * NEW / max(whole[n] - first[n], 1e-9) for n in (1, 8)}
    return {"first": 1000 * first[1], **rates}


def _forward(where: Any, run: Callable[[int, int], Any], short: int, long: int) -> dict[str, Any]:
    run(1, short)
    latency = _seconds(where, partial(run, 1, short))
    rates = {f"throughput{n}": n / _seconds(where, partial(run, n, long)) for n in (1, 8)}
    return {"latency": 1000 * latency, **rates}


def _seconds(where: Any, run: Callable[[], Any]) -> float:
    """Seconds of one call: the median of at least three, and of a second's worth."""
    import statistics

    taken: list[float] = []
    while len(taken) < 3 or sum(taken) < LEAST_SECONDS:
        begun = time.perf_counter()
        run()
        _wait(where)
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def _wait(where: Any) -> None:
    if where.type == "cuda":
        import torch

        torch.cuda.synchronize(where)


if __name__ == "__main__":
    from corecompress.errors import CorecompressError

    try:
        main()
    except CorecompressError as problem:
        sys.exit(str(problem))
