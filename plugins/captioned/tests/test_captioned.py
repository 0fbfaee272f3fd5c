"""The data component `captioned`, installed and found by its entry point."""

from __future__ import annotations

import io
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


def test_sizes_and_modes_are_counted_and_told_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made = [
        Image.new("RGB", (8, 8), (255, 0, 0)),
        Image.new("RGBA", (8, 8), (255, 0, 0, 0)),
        Image.new("L", (9, 7), 51),
    ]
    made += [Image.fromarray(np.full((8, 8), 0x3333, np.uint16)), Image.new("P", (8, 8)), Image.new("CMYK", (8, 8))]
    for n, image in enumerate(made):
        image.save(tmp_path / f"{n}.{'tif' if image.mode == 'CMYK' else 'png'}")
    data = corecompress.open_data(f"captioned(calibration=1, evaluation=0):{tmp_path}")
    batch = next(iter(data.batches(0)))
    list(data.batches(0))
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "6 images of 2 sizes and 6 modes, all made 8 × 8 RGB: 1 resized" in lines[0]
    assert "1 from mode RGBA" in data.report().figures["converted"]
    pixels = dict(zip(batch["document"].tolist(), batch["pixel_values"], strict=True))
    np.testing.assert_allclose(pixels[0][:, 0, 0], [1, 0, 0])
    np.testing.assert_allclose(pixels[1], 1)  # transparent: white, not the red below
    np.testing.assert_allclose(pixels[2], 0.2)
    np.testing.assert_allclose(pixels[3], 0.2)  # 16 bits


def test_images_that_the_metadata_leaves_out_are_counted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train").mkdir()
    for n in range(5):
        Image.new("L", (8, 8), 40 * n).save(tmp_path / "train" / f"{n}.png")
    lines = [json.dumps({"file_name": f"./train/{n}.png", "text": f"grey {n}"}) + "\n" for n in range(3)]
    (tmp_path / "metadata.jsonl").write_text("".join(lines))
    data = corecompress.open_data(f"captioned(calibration=1, evaluation=0):{tmp_path}")
    found = [str(caption) for batch in data.batches(0) for caption in batch["caption"]]
    assert sorted(found) == ["grey 0", "grey 1", "grey 2"]
    assert capfd.readouterr().err.count("2 images are not in its metadata and left out") == 1
    assert data.report().figures["not in the metadata, left out"] == 2


def test_classes_are_labels_and_splits_need_no_captions(tmp_path: Path) -> None:
    folder = pictures(tmp_path)
    batch = next(iter(corecompress.open_data(f"captioned(size=8):{folder}").batches(0)))
    assert batch["label"].dtype == np.int64
    assert [("blue dog", "red cat")[n] for n in batch["label"]] == [str(c) for c in batch["caption"]]
    without = next(iter(corecompress.open_data(f"captioned(size=8, captions=off):{folder}").batches(0)))
    assert set(without) == {"pixel_values", "document", "label"}


def test_captions_beside_images_and_in_tables(tmp_path: Path) -> None:
    beside, table = tmp_path / "beside", tmp_path / "table"
    for folder in (beside, table):
        (folder / "train").mkdir(parents=True)
        for n in range(4):
            Image.new("RGB", (4, 4), (n, 0, 0)).save(folder / "train" / f"{n}.png")
            (folder / "train" / f"{n}.txt").write_text(f" picture\n{n}", encoding="utf-8")
    (table / "metadata.csv").write_text(
        "file_name,words,label\n" + "".join(f'train/{n}.png,"图 {n}, red",{10 - n}\n' for n in range(4)), "utf-8"
    )
    every = "calibration=1, evaluation=0"
    first = next(iter(corecompress.open_data(f"captioned({every}):{beside}").batches(0)))
    assert {str(c) for c in first["caption"]} == {f"picture {n}" for n in range(4)}
    assert "label" not in first
    data = corecompress.open_data(f"captioned({every}, caption_column=words):{table}")
    second = next(iter(data.batches(0)))
    assert data.source.classes == ("7", "8", "9", "10")
    assert {(str(c), int(n)) for c, n in zip(second["caption"], second["label"], strict=True)} == {
        (f"图 {n}, red", 3 - n) for n in range(4)
    }


def test_missing_captions_name_the_file_and_the_mend(tmp_path: Path) -> None:
    for n in range(3):
        Image.new("RGB", (4, 4), (n, 0, 0)).save(tmp_path / f"{n}.png")
    assert "caption" not in next(iter(corecompress.open_data(f"captioned:{tmp_path}").batches(0, "calibration")))
    with pytest.raises(CorecompressError, match=r"0\.png: has no caption, like 3 of 3 .* give it a 'text'"):
        corecompress.open_data(f"captioned(captions=required):{tmp_path}")
    (tmp_path / "metadata.jsonl").write_text(
        "\n".join(json.dumps({"file_name": f"{n}.png", "text": None if n == 1 else f"x {n}"}) for n in range(3))
    )
    with pytest.raises(CorecompressError, match=r"1\.png: has no caption, like 1 of 3 .* or captions=off"):
        corecompress.open_data(f"captioned:{tmp_path}")


def test_a_second_pass_equals_the_first_also_where_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = f"captioned(size=8, batch=4):{pictures(tmp_path)}"
    kept = corecompress.open_data(spec)
    first, second = (list(kept.batches(1, "training")) for _ in range(2))
    monkeypatch.setattr("corecompress_captioned.data.KEPT", 0)
    third = list(corecompress.open_data(spec).batches(1, "training"))
    for one, *others in zip(first, second, third, strict=True):
        for other in others:
            assert all((one[name] == other[name]).all() for name in one)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: p / "nothing", "no such folder"),
        (lambda p: _folder(p / "empty", {}), "holds no image"),
        (lambda p: _folder(p / "broken", {"a.png": b"\x00\x01"}), "no image that can be read"),
        (lambda p: _folder(p / "rows", {"metadata.jsonl": b"[1]\n"}), "line 1"),
        (lambda p: _folder(p / "latin", {"metadata.jsonl": b'{"file_name": "\xe9"}\n'}), "no UTF-8"),
        (lambda p: _folder(p / "float", {"a.tif": _saved(Image.new("F", (4, 4)), "TIFF")}), "no agreed range"),
        (lambda p: _folder(p / "cut", {"a.png": _saved(Image.effect_noise((64, 64), 9), "PNG")[:900]}), "can be read"),
        (lambda p: _folder(p, {"a.png": b""}) / "a.png", "give the folder"),
        (lambda p: _folder(p / "gone", {"metadata.jsonl": b'{"file_name": "x.png"}\n'}), "which isn't there"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, make, says: str) -> None:
    with pytest.raises(CorecompressError, match=says) as caught:
        list(corecompress.open_data(f"captioned(calibration=1, evaluation=0):{make(tmp_path)}").batches(0))
    assert "\n" not in str(caught.value)


def _saved(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def _folder(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder
