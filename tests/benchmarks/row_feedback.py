"""What feedback among rows can save, by gradients that calibration has not seen.

    python tests/benchmarks/row_feedback.py CHECKPOINT TEXT --cache DIR [--tokens 16384] [--held 4096] [--blocks 2 10 18 26]

DIR: where `compress CHECKPOINT --data text:TEXT --cache DIR` has left its Hessians H of inputs (folder calibration-…). From
the first 80 % of TEXT come second moments R of the gradients' directions at every linear layer's outputs, from the rest
tokens that judge. Errors that quantising shapes like R⁻¹ and H⁻¹ cost E[(gᵀ R⁻¹ g) (xᵀ H⁻¹ x)] at the rate of ½ log₂ det
of both, so the gain in bits a weight over a diagonal R is exact at high rates: for R in groups of 64 rows, and whole.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import torch
from measuring import markdown
from transformers import AutoModelForCausalLM, AutoTokenizer

from corecompress_vae.calibrate import ROW_DAMPING, load
from corecompress_vae.passes import draw_score
from corecompress_vae.watch import GROUP

WINDOW = 512


class Gradients:
    """Hooks on linear layers: moments of the outputs' gradients while `learning`, then what they cost."""

    def __init__(self, model: torch.nn.Module, inverse: dict[str, torch.Tensor]):
        self.inverse, self.learning = inverse, True
        self.moments: dict[str, torch.Tensor] = {}
        self.energy: dict[str, list[float]] = defaultdict(list)
        self.held: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = defaultdict(list)
        for name in inverse:
            model.get_submodule(name).register_forward_hook(self._on(name))

    def _on(self, name: str):
        def forward(module, args, out):
            x = args[0].detach().flatten(0, -2).float()
            out.register_hook(lambda g: self._add(name, x, g.detach().flatten(0, -2).float()))

        return forward

    def _add(self, name: str, x: torch.Tensor, g: torch.Tensor) -> None:
        if not self.learning:
            self.held[name].append((g.double(), (x @ self.inverse[name].T).square().mean(1).double()))
            return
        token = g.square().mean(1)
        self.energy[name].append(float(token.mean()))
        mean = sum(self.energy[name]) / len(self.energy[name])
        even = g / (token + mean).sqrt()[:, None]
        self.moments[name] = self.moments.get(name, 0) + even.T @ even

    def gains(self, name: str) -> tuple[float, float]:
        """Bits a weight that R in groups, and the whole R, save over R's diagonal, half of it the mean."""
        r = self.moments[name].double()
        r = r / r.diagonal().mean()
        eye = torch.eye(len(r), dtype=torch.float64)
        near = torch.arange(len(r)) // GROUP
        grouped = r * (near[:, None] == near[None])
        g, x = (torch.cat(parts) for parts in zip(*self.held[name], strict=True))
        alone = _bits(torch.diag(0.5 * r.diagonal() + 0.5), g, x)
        return tuple(alone - _bits(one + ROW_DAMPING * eye, g, x) for one in (grouped, r))


def _bits(r: torch.Tensor, g: torch.Tensor, x: torch.Tensor) -> float:
    factor = torch.linalg.cholesky(r)
    cost = (torch.linalg.solve_triangular(factor, g.T, upper=False).square().sum(0) * x).mean()
    return float(cost.log2() / 2 + factor.diagonal().log2().mean())


def run(model: torch.nn.Module, windows: torch.Tensor, generator: torch.Generator) -> None:
    """Gradients of −log p of labels that the model draws itself."""
    for part in windows.split(2):
        logits = model(part).logits.flatten(0, 1)
        with torch.no_grad():
            score = draw_score(logits.float().softmax(-1), generator)
        logits.backward(score.to(logits.dtype))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("text", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=16384)
    parser.add_argument("--held", type=int, default=4096)
    parser.add_argument("--blocks", type=int, nargs="*", default=[2, 10, 18, 26])
    asked = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(asked.checkpoint, dtype=torch.bfloat16, attn_implementation="eager")
    model.eval().requires_grad_(False)
    (folder,) = asked.cache.glob("calibration-*")
    inverse = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and any(f".{block}." in name for block in asked.blocks):
            found = load(folder, f"{name}.weight")
            inverse[name] = torch.from_numpy(found.unit * found.steps[:, None])
    model.get_input_embeddings().register_forward_hook(lambda module, args, out: out.requires_grad_(True))
    gradients = Gradients(model, inverse)
    tokenizer, text = AutoTokenizer.from_pretrained(asked.checkpoint), asked.text.read_text(encoding="utf-8")
    cut = int(len(text) * 0.8)
    for part, tokens in ((text[:cut], asked.tokens), (text[cut:], asked.held)):
        ids = tokenizer(part, return_tensors="pt").input_ids[0]
        windows = ids[: len(ids) // WINDOW * WINDOW].view(-1, WINDOW)
        chosen = torch.randperm(len(windows), generator=generator)[: tokens // WINDOW]
        run(model, windows[chosen], generator)
        gradients.learning = False
    kinds: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for name in inverse:
        kinds[name.rpartition(".")[2]].append(gradients.gains(name))
    rows = [[kind, *(f"{sum(v) / len(v):.3f}" for v in zip(*found, strict=True))] for kind, found in kinds.items()]
    print("\n".join(markdown(["bits a weight saved", f"groups of {GROUP} rows", "all rows"], rows)))


if __name__ == "__main__":
    main()
