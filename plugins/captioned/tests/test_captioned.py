"""The data component `captioned`, installed and found by its entry point."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import corecompress
from corecompress.errors import CorecompressError


def pictures(folder: Path, count: int = 40) -> Path:
    rng = np.random.default_rng(0)
    for n in range(count):
        place = folder / ("red_cat" if n % 2 else "blue_dog")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 24 + n % 3, 3), dtype=np.uint8)).save(place / f"{n}.png")
    return folder


def test_a_folder_a_class_and_its_splits(tmp_path: Path) -> None:
    data = corecompress.open_data(f"captioned(size=16, batch=4):{pictures(tmp_path)}")
    seen = {}
    for split in ("calibration", "training", "evaluation"):
        batches = list(data.batches(0, split))
        assert all(batch["pixel_values"].shape[1:] == (3, 16, 16) for batch in batches)
        assert {str(c) for batch in batches for c in batch["caption"]} <= {"red cat", "blue dog"}
        seen[split] = {int(d) for batch in batches for d in batch["document"]}
    assert sum(map(len, seen.values())) == 40
    assert len(set().union(*seen.values())) == 40
    again = list(data.batches(0, "calibration", start=1))
    for one, other in zip(list(data.batches(0, "calibration"))[1:], again, strict=True):
        assert (one["pixel_values"] == other["pixel_values"]).all()


def test_metadata_preprocessing_and_fingerprint(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for n in range(20):
        Image.new("L", (10, 8), n * 10).save(folder / f"{n}.png")
    rows = [json.dumps({"file_name": f"{n}.png", "text": f"grey {n}"}) for n in range(20)]
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"model_type": "vit", "num_channels": 3, "image_size": 6}))
    said = {"size": {"shortest_edge": 8}, "do_center_crop": True, "crop_size": 6, "do_normalize": True}
    said |= {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    (model / "preprocessor_config.json").write_text(json.dumps(said))
    _write_weights(model)
    data = corecompress.open_data(f"captioned(calibration=1, evaluation=0):{folder}", str(model))
    batch = next(iter(data.batches(0)))
    assert batch["pixel_values"].shape == (20, 3, 6, 6)
    for pixels, caption in zip(batch["pixel_values"], batch["caption"], strict=True):
        grey = int(str(caption).split()[1]) * 10 / 255
        np.testing.assert_allclose(pixels, (grey - 0.5) / 0.25, rtol=1e-5)
    before = data.fingerprint()
    Image.new("L", (10, 8), 255).save(folder / "0.png")
    changed = corecompress.open_data(f"captioned(calibration=1, evaluation=0):{folder}", str(model))
    assert changed.fingerprint() != before


def _write_weights(folder: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"w": np.zeros((2, 2), np.float32)}, folder / "model.safetensors")


def test_digits_evaluate_an_image_classifier(tmp_path: Path) -> None:
    import torch
    import transformers

    config = transformers.ViTConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=28,
        patch_size=7,
        num_channels=1,
        num_labels=10,
    )
    for name in ("one", "other"):
        torch.manual_seed(len(name))
        transformers.ViTForImageClassification(config).save_pretrained(tmp_path / name)
    same = corecompress.evaluate(tmp_path / "one", tmp_path / "one", "captioned:digits", samples=64)
    assert same.metrics["kl"].value == 0
    assert same.metrics["top1"].value == 1
    assert (
        corecompress.evaluate(tmp_path / "one", tmp_path / "other", "captioned:digits", samples=64).metrics["kl"].value
        > 0
    )


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: p / "nothing", "no such folder"),
        (lambda p: _folder(p / "empty", {}), "holds no image"),
        (lambda p: _folder(p / "broken", {"a.png": b"\x00\x01"}), "no image that can be read"),
        (lambda p: _folder(p / "rows", {"metadata.jsonl": b"[1]\n"}), "line 1"),
        (lambda p: _folder(p / "gone", {"metadata.jsonl": b'{"file_name": "x.png"}\n'}), "which isn't there"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, make, says: str) -> None:
    with pytest.raises(CorecompressError, match=says) as caught:
        list(corecompress.open_data(f"captioned(calibration=1, evaluation=0):{make(tmp_path)}").batches(0))
    assert "\n" not in str(caught.value)


def _folder(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder
