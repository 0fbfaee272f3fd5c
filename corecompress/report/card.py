"""The README.md of a compressed folder, its model card: what it is, how to load it, what was done, what that cost."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corecompress.artifact import ORIGINAL_CARD, Artifact, Manifest
from corecompress.checkpoint import MANIFEST
from corecompress.report.units import human_bytes, human_figure
from corecompress.writer import file_record

if TYPE_CHECKING:
    from corecompress.measure.evaluate import Evaluation

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
"""An organisation's or a person's model; a path of two parts that begins elsewhere looks otherwise."""
KEPT = ("language", "license", "license_name", "license_link", "pipeline_tag", "datasets")
"""Keys of the original card's front matter that hold for the compressed model as well."""

TEXT = """---
{front}---

# {name}, compressed

{made}

| | original | compressed |
|---|---:|---:|
| weights | {before} | {after} |
| bits per weight, without the other files | {bits_before:.2f} | {bits_after:.2f} |

## Quality

{quality}

## Loading

```
pip install "corecompress[hf]" {needs}
```
```python
from transformers import AutoModel

model = AutoModel.from_pretrained("path/to/this/folder")
```

transformers finds corecompress by itself. Where that is switched off (TORCH_DEVICE_BACKEND_AUTOLOAD=0), write
`import corecompress.hf` first, or `corecompress.load("path/to/this/folder")`.
`corecompress decompress FOLDER -o DENSE` writes an ordinary checkpoint again,
`corecompress verify FOLDER` checks every byte.
"""

NOT_MEASURED = """Not measured. `corecompress evaluate ORIGINAL FOLDER --data text:corpus.txt --card` measures it and
writes the figures here."""
EXACT = "Every tensor is the original's, bit for bit."


def write_card(folder: Path, manifest: Manifest, exact: bool) -> None:
    """Write the card of a folder whose other files are there. exact: whether every tensor is as it was."""
    _write(folder / "README.md", _render(folder, manifest, EXACT if exact else NOT_MEASURED))


def add_evaluation(folder: Path, found: Evaluation) -> None:
    """Put measured figures into the card of a compressed folder, and the card's new hash into its manifest."""
    manifest = Artifact(folder).manifest
    _write(folder / "README.md", _render(folder, manifest, _figures(found)))
    files = [file for file in manifest.files if file.name != "README.md"] + [file_record(folder, "README.md")]
    changed = dataclasses.replace(manifest, files=tuple(sorted(files, key=lambda file: file.name)))
    _write(folder / MANIFEST, changed.to_text())


def _write(path: Path, text: str) -> None:
    scratch = path.with_name(path.name + ".tmp")
    scratch.write_text(text, encoding="utf-8")
    os.replace(scratch, path)


def _render(folder: Path, manifest: Manifest, quality: str) -> str:
    name = str(manifest.source["name"])
    before = sum(shard["bytes"] for shard in manifest.source["shards"])
    after = sum(payload.bytes for payload in manifest.payloads)
    parameters = sum(record.info.size for record in manifest.tensors if record.same_as is None) or 1
    data = f" Calibration data: fingerprint `{manifest.data}`." if manifest.data else ""
    made = (
        f"Made by corecompress {manifest.corecompress} with the recipe `{manifest.recipe}`, seed {manifest.seed}.{data}"
    )
    text = TEXT.format(
        front=_front_matter(folder, name),
        name=name.rpartition("/")[2],
        made=made,
        before=human_bytes(before),
        after=human_bytes(after),
        bits_before=8 * before / parameters,
        bits_after=8 * after / parameters,
        quality=quality,
        needs=" ".join(sorted({f'"{used.distribution}"' for used in manifest.components if used.version != "file"})),
    )
    if (folder / ORIGINAL_CARD).exists():
        text += "\nThe original's own card is in README.original.md.\n"
    return text


def _front_matter(folder: Path, name: str) -> str:
    """YAML that the hub understands; licence, language and task are the original's."""
    import yaml

    original = _original_metadata(folder)
    tags = [str(tag) for tag in original.get("tags") or []]
    known: dict[str, Any] = {"library_name": original.get("library_name", "transformers")}
    known["tags"] = list(dict.fromkeys(["corecompress", *tags]))
    known |= _base_model(folder, name, original)
    known |= {key: original[key] for key in KEPT if key in original}
    return str(yaml.safe_dump(known, sort_keys=False, allow_unicode=True))


def _base_model(folder: Path, name: str, original: dict[str, Any]) -> dict[str, Any]:
    """The original, where the hub knows it; of a local folder what its card or its configuration says it came from."""
    if "/" in name:
        return {"base_model": name, "base_model_relation": "quantized"}
    if "base_model" in original:
        return {"base_model": original["base_model"]}
    path = folder / "config.json"
    came_from = json.loads(path.read_text("utf-8")).get("_name_or_path", "") if path.exists() else ""
    return {"base_model": came_from} if isinstance(came_from, str) and HUB_ID.fullmatch(came_from) else {}


def _original_metadata(folder: Path) -> dict[str, Any]:
    from huggingface_hub.repocard import metadata_load

    path = folder / ORIGINAL_CARD
    try:
        found = metadata_load(path) if path.exists() else None
    except Exception:  # a card that can't be parsed has nothing to carry along; its text still goes with the folder
        found = None
    return found if isinstance(found, dict) else {}


def _figures(found: Evaluation) -> str:
    own = any(metric.original is not None for metric in found.metrics.values())
    lines = [
        "| | " + ("original | " if own else "") + "compressed | standard error |",
        "|---|" + "---:|" * (3 if own else 2),
    ]
    for metric in found.metrics.values():
        before = "" if not own else (" | " if metric.original is None else f"{human_figure(metric.original)} | ")
        error = "" if metric.stderr is None else human_figure(metric.stderr, 2)
        unit = f", {metric.unit}" if metric.unit else ""
        lines.append(f"| {metric.label}{unit} | {before}{human_figure(metric.value)} | {error} |")
    data = found.data
    lines += [
        "",
        f"On `{data['spec']}`, {data['samples']} samples ({data['rows']} rows, {data['documents']} documents) of the "
        f"{data['split']} split, which shares no document with what the model was calibrated on; data fingerprint "
        f"`{data['fingerprint']}`, seed {data['seed']}. Standard errors by bootstrap over documents.",
    ]
    return "\n".join(lines)
