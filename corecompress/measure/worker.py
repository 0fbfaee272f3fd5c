"""The process that runs models for an evaluation: python -m corecompress.measure.worker ARCHITECTURE < requests

It imports (seconds), then forks a fresh process for every request, a line of JSON: load a folder, run the batches, end.
Every answer is a line of JSON; an error's is {"error": "one line"}. The original's outputs go to files, one a piece;
the other side reads them back one by one.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from corecompress.errors import CorecompressError
from corecompress.measure.outputs import Outputs, Rows, auto_class


def main() -> None:
    """Serve requests until standard input ends."""
    answers, sys.stdout = sys.stdout, sys.stderr
    try:
        _import(sys.argv[1])
    except ImportError as problem:
        _say(answers, {"error": f'{problem}; evaluating needs torch and transformers: pip install "corecompress[hf]"'})
        return
    for line in sys.stdin:
        request = json.loads(line)
        if not hasattr(os, "fork"):
            _answer(answers, request)
            continue
        child = os.fork()
        if child == 0:
            _answer(answers, request)
            answers.flush()
            os._exit(0)  # a model's memory need not be tidied up
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status:
            _say(answers, {"error": f"its process died (exit code {status}); is there memory enough?"})


def _answer(answers: TextIO, request: dict[str, Any]) -> None:
    try:
        outputs = _load(**request["load"])
        _run(outputs, answers, **request["run"])
        _say(answers, {"done": True})
    except CorecompressError as problem:
        _say(answers, {"error": str(problem)})
    except Exception as problem:
        _say(answers, {"error": f"{type(problem).__name__}: {' '.join(str(problem).split())[:300]}"})


def _say(answers: TextIO, value: dict[str, Any]) -> None:
    print(json.dumps(value), file=answers, flush=True)


def _import(architecture: str) -> None:
    """All that takes long and is the same for both sides.

    The garbage collector would look again and again at what imports leave behind, which takes a quarter of their time.
    What is there afterwards stays for good, in both forked processes.
    """
    gc.disable()
    import torch
    import transformers
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    getattr(transformers, architecture, None)
    import corecompress.hf.load
    import corecompress.hf.quantizer

    assert torch
    assert corecompress.hf
    gc.freeze()
    gc.enable()


def _load(folder: str, original: str, task: Any, dtype: str, device: str | None, seed: int) -> Outputs:
    import torch

    from corecompress.hf.load import load_model

    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        cls = auto_class(task, Path(folder))
        model = load_model(Path(folder), cls, dtype=dtype if dtype == "auto" else getattr(torch, dtype))
        model = model.eval().to(chosen)
    except CorecompressError:
        raise
    except Exception as problem:
        reason = " ".join(str(problem).split())[:200]
        raise CorecompressError(f"{folder}: does not load ({type(problem).__name__}: {reason})") from None
    return Outputs(model, task, Path(original), seed)


def _run(outputs: Outputs, answers: TextIO, batches: str, reference: str, result: str, original: bool) -> None:
    """All batches through the model. original: write outputs to `reference`; else compare with what is there."""
    found: list[dict[str, NDArray[Any]]] = []
    files = sorted(Path(batches).glob("*.npz"))
    for number, path in enumerate(files):
        with np.load(path) as archive:
            batch = dict(archive)
        for piece, rows in enumerate(outputs.of(batch, number)):
            stored = Path(reference) / f"{number:06d}-{piece:04d}.npy"
            found.append(_write(rows, stored) if original else _compare(rows, stored))
        _say(answers, {"progress": number + 1, "of": len(files)})
    keys = found[0].keys() if found else ()
    joined: dict[str, Any] = {key: np.concatenate([piece[key] for piece in found]) for key in keys}
    np.savez(result, **joined)


def _write(rows: Rows, path: Path) -> dict[str, NDArray[Any]]:
    """The original's side of a piece: outputs to the file, figures returned."""
    np.save(path, rows.values.cpu().numpy())
    if not rows.is_logits:
        return {**_own(rows), "documents": rows.documents}
    sums = [_log_sum(values) for values in rows.values.split(rows.chunk)]
    best = [values.argmax(1) for values in rows.values.split(rows.chunk)]
    np.savez(path.with_suffix(".npz"), log_sum=_joined(sums), best=_joined(best))
    return {**_likelihood(rows, _joined(sums)), "documents": rows.documents}


def _likelihood(rows: Rows, log_sum: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """−ln p of the targets, where there are some."""
    import torch

    if not len(rows.targets) or (rows.targets < 0).any():
        return {}
    targets = torch.from_numpy(rows.targets).to(rows.values.device)
    chosen = rows.values.gather(1, targets[:, None])[:, 0]
    return {"nll": log_sum.astype(np.float64) - chosen.double().cpu().numpy()}


def _compare(rows: Rows, path: Path) -> dict[str, NDArray[Any]]:
    """The other side of a piece, held against the file."""
    stored = np.load(path, mmap_mode="r")
    if stored.shape != tuple(rows.values.shape):
        raise CorecompressError(f"the outputs have shape {tuple(rows.values.shape)}, the original's {stored.shape}")
    if rows.is_logits:
        return _compare_logits(rows, stored, path)
    mine, theirs = rows.values.double().cpu().numpy(), np.asarray(stored, np.float64)
    if rows.is_embedding:
        return {"mine": mine, "theirs": theirs, "documents": rows.documents}
    error, norm = ((mine - theirs) ** 2).sum(1), (theirs**2).sum(1)
    return {**_own(rows), "error": error, "norm": norm, "documents": rows.documents}


def _own(rows: Rows) -> dict[str, NDArray[Any]]:
    """What a model says of its samples by itself."""
    return {} if rows.nll is None else {"nll": rows.nll}


def _compare_logits(rows: Rows, stored: NDArray[np.float32], path: Path) -> dict[str, NDArray[Any]]:
    """KL(original ‖ other) = Σ p·(x − y) − lse(x) + lse(y), x and y the logits: 0 exactly where they are the same."""
    import torch

    with np.load(path.with_suffix(".npz")) as known:
        log_sum, best = torch.from_numpy(known["log_sum"]), known["best"]
    divergence, sums, mine = [], [], []
    for at in range(0, len(stored), rows.chunk):
        y = rows.values[at : at + rows.chunk]
        x = torch.from_numpy(np.array(stored[at : at + rows.chunk])).to(y.device)
        lse_x, lse_y = log_sum[at : at + rows.chunk].to(y.device), _log_sum(y)
        p = torch.exp(x - lse_x[:, None])
        moved = torch.linalg.vecdot(p, x.sub_(y)).double()
        divergence.append(moved - lse_x.double() + lse_y.double())
        sums.append(lse_y)
        mine.append(y.argmax(1))
    own = _likelihood(rows, _joined(sums))
    return {**own, "kl": _joined(divergence), "same": _joined(mine) == best, "documents": rows.documents}


def _log_sum(values: Any) -> Any:
    import torch

    return torch.logsumexp(values, 1)


def _joined(parts: list[Any]) -> NDArray[Any]:
    import torch

    found: NDArray[Any] = torch.cat(parts).cpu().numpy()
    return found


if __name__ == "__main__":
    main()
