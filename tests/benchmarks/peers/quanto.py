"""optimum-quanto: type=qint8|qint4|qint2, stored as its own state dict and quantisation map.

pip install torch transformers optimum-quanto safetensors
"""

import json
from pathlib import Path
from typing import Any

import optimum.quanto
import torch
from adapter import TABLES, Options, linear_names, load, main, model_class, save
from optimum.quanto import freeze, quantization_map, quantize, requantize
from transformers import AutoConfig


def runs(source: Path) -> list[Options]:
    return [{"type": "qint4"}, {"type": "qint8"}]


def compress(source: Path, out: Path, windows: Path, options: Options) -> dict[str, int]:
    model = model_class(source).from_pretrained(source, dtype="auto")
    quantize(model, weights=getattr(optimum.quanto, options["type"]), exclude=[f"*{part}*" for part in TABLES])
    freeze(model)
    names = set(load(source))
    linear = tuple(linear_names(load(source)))
    inner = {key: t for key, t in model.state_dict().items() if not key.endswith(("input_scale", "output_scale"))}
    kept = {key: t for key, t in inner.items() if key in names or key.startswith(linear)}
    save(kept, out / "model.safetensors")
    (out / "map.json").write_text(json.dumps(quantization_map(model)))
    return {"linear_bytes": sum(t.nbytes for key, t in kept.items() if key.startswith(linear))}


def restore(source: Path, out: Path, options: Options) -> dict[str, Any]:
    with torch.device("meta"):
        model = model_class(source)(AutoConfig.from_pretrained(source))
    kept = load(out)
    requantize(model, dict(kept), json.loads((out / "map.json").read_text()), device=torch.device("cpu"))
    modules = dict(model.named_modules())
    weights = {name: modules[name.removesuffix(".weight")].weight for name in linear_names(load(source))}
    plain = {name: t for name, t in kept.items() if name in load(source)}
    return plain | {name: w.dequantize().detach() for name, w in weights.items()}


if __name__ == "__main__":
    main(("optimum-quanto", "transformers", "torch"), runs, compress, restore)
