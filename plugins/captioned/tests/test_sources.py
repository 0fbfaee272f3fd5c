"""The sources of `captioned` that are fetched or come through `datasets`, and what a .deb is unpacked by."""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import corecompress
from corecompress.errors import CorecompressError
from corecompress.hashing import hash_bytes
from corecompress_captioned import debian, hub
from corecompress_captioned.emoji import concept

SPLITS = ("calibration", "training", "evaluation")


def whole(spec: str, split: str) -> dict[str, np.ndarray[Any, Any]]:
    batches = list(corecompress.open_data(spec).batches(0, split))
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def test_fashion_is_whole_labelled_and_captioned() -> None:
    data = corecompress.open_data("captioned(batch=1000):fashion")
    assert sum(len(data.numbers(split)) for split in SPLITS) == 70_000
    batch = next(iter(data.batches(0, "evaluation")))
    pixels = batch["pixel_values"]
    assert pixels.shape == (1000, 1, 28, 28)
    assert (pixels.min(), pixels.max()) == (0, 1)
    names = data.source.classes
    for caption, label in zip(batch["caption"], batch["label"], strict=True):
        assert names[label] in str(caption)
    assert len({str(c) for c in batch["caption"] if "ankle boot" in str(c)}) == 5
    assert Counter(data.source.labels.tolist()) == dict.fromkeys(range(10), 7000)


def test_fashion_can_keep_its_official_test_set() -> None:
    data = corecompress.open_data("captioned(split=official, calibration=0.1):fashion")
    assert data.numbers("evaluation").tolist() == list(range(60_000, 70_000))
    assert len(data.numbers("calibration")) + len(data.numbers("training")) == 60_000
    with pytest.raises(CorecompressError, match="has no official test set"):
        corecompress.open_data("captioned(split=official):digits")


def test_fewer_images_are_the_same_and_stay_in_their_split() -> None:
    all_, some = (corecompress.open_data(f"captioned{options}:digits") for options in ("", "(images=1000)"))
    for split in SPLITS:
        before = set(all_.source.digests[all_.numbers(split)].tolist())
        after = set(some.source.digests[some.numbers(split)].tolist())
        assert after < before
    assert sum(len(some.numbers(split)) for split in SPLITS) == 1000
    assert abs(len(some.numbers("calibration")) - 400) < 60


def test_digits_have_labels_that_captions_name() -> None:
    words = "zero one two three four five six seven eight nine".split()
    found = whole("captioned:digits", "evaluation")
    assert found["label"].dtype == np.int64
    assert all(words[n] in str(c) for n, c in zip(found["label"], found["caption"], strict=True))


def test_emoji_splits_share_no_concept_and_no_picture() -> None:
    data = corecompress.open_data("captioned(size=32, language=both, images=1500, batch=64):emoji")
    documents, pictures = {}, {}
    for split in SPLITS:
        batches = list(data.batches(0, split))
        documents[split] = {int(number) for batch in batches for number in batch["document"]}
        pictures[split] = {hash_bytes(image.tobytes()) for batch in batches for image in batch["pixel_values"]}
        captions = [str(caption) for batch in batches for caption in batch["caption"]]
        chinese = [caption for caption in captions if any("\u4e00" <= sign <= "\u9fff" for sign in caption)]
        assert 0.45 < len(chinese) / len(captions) <= 0.51
    for one, other in (("calibration", "training"), ("calibration", "evaluation"), ("training", "evaluation")):
        assert not documents[one] & documents[other]
        assert not pictures[one] & pictures[other]
    data = corecompress.open_data("captioned(language=both):emoji")
    captions = data.source.captions
    assert {"grinning face", "嘿嘿", "flag: France", "旗: 法国", "woman astronaut dark skin tone"} <= set(captions)
    assert len(captions) > 2 * 3700
    groups = dict(zip(captions, data.source.groups.tolist(), strict=True))
    assert groups["flag: France"] == groups["flag: St. Martin"]  # the same picture
    assert groups["man astronaut light skin tone"] == groups["astronaut"] != groups["person"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("🧑🏽‍🚀", "👩‍🚀"),
        ("🏃🏿‍♀️‍➡️", "🏃"),
        ("👩‍🦰", "👨"),
        ("👨‍👩‍👧", "👨‍👦"),
        ("👩🏻‍❤️‍💋‍👨🏿", "💏"),
        ("👩‍❤️‍👩", "💑"),
        ("🧑🏻‍🤝‍🧑🏿", "👬"),
        ("🫱🏻‍🫲🏿", "🤝"),
        ("🧑‍🎄", "🤶🏽"),
    ],
)
def test_variants_of_an_emoji_are_one_concept(one: str, other: str) -> None:
    assert concept(one) == concept(other)
    assert concept(one) != concept("🐻‍❄️") != concept("🐻")


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder laid out as a set of the hub is, which `datasets` loads by its name: 30 images in `train`, 12 in `test`."""
    import datasets
    from huggingface_hub import constants

    monkeypatch.setenv("CORECOMPRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "acme" / "set"
    features = datasets.Features(
        image=datasets.Image(),
        label=datasets.ClassLabel(names=["red_cat", "blue_dog"]),
        note=datasets.Value("string"),
        told=datasets.Sequence(datasets.Value("string")),
    )
    rng = np.random.default_rng(0)
    for split, count in (("train", 30), ("test", 12)):
        images = [Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for _ in range(count)]
        rows = {"image": images, "label": [n % 2 for n in range(count)], "note": [f"{split} {n}" for n in range(count)]}
        rows["told"] = [[f"first {n}", f"second {n}"] for n in range(count)]
        (folder / "data").mkdir(parents=True, exist_ok=True)
        table = datasets.Dataset.from_dict(rows, features=features)
        table.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


EVERYTHING = "calibration=1, evaluation=0"


def test_a_set_of_the_hub_through_datasets(acme: Path) -> None:
    found = whole(f"captioned({EVERYTHING}):acme/set::test", "calibration")
    assert found["pixel_values"].shape == (12, 3, 8, 8)
    captions = {0: "red cat", 1: "blue dog"}
    assert [captions[int(n)] for n in found["label"]] == [str(c) for c in found["caption"]]
    named = whole(f"captioned({EVERYTHING}, caption_column=note, images=20):acme/set:default:train", "calibration")
    assert {str(c) for c in named["caption"]} == {f"train {n}" for n in range(20)}
    listed = whole(f"captioned({EVERYTHING}, caption_column=told):acme/set", "calibration")
    assert {str(c) for c in listed["caption"]} == {f"first {n}" for n in range(30)}


def test_a_set_of_the_hub_is_streamed_once(acme: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the hub names a commit: the second time its rows come from the cache."""
    monkeypatch.setattr(hub, "_commit", lambda name: "0123abc")
    streams = []
    stream = hub._stream
    monkeypatch.setattr(hub, "_stream", lambda **asked: streams.append(stream(**asked)) or streams[-1])
    spec = f"captioned({EVERYTHING}, images=10):acme/set"
    first = whole(spec, "calibration")
    assert len(streams) == 2  # once for the columns, once for the rows
    second = whole(spec, "calibration")
    assert len(streams) == 3
    assert first["pixel_values"].shape == (10, 3, 8, 8)
    assert all((first[name] == second[name]).all() for name in first)
    assert set(first["caption"].tolist()) == {"red cat", "blue dog"}


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("captioned:acme/set::none", "split"),
        ("captioned(caption_column=gone):acme/set", "there are note, told"),
        ("captioned(image_column=note):acme/set", "there are image"),
        ("captioned:acme/nothing", "neither a folder here nor a set that can be had"),
        ("captioned:picturs", "no such folder"),
        ("captioned(language=zh):digits", "is for captioned:emoji"),
        ("captioned(caption_column=x):digits", "has no columns"),
    ],
)
def test_unclear_or_missing_sets_are_one_line(acme: Path, spec: str, says: str) -> None:
    with pytest.raises(CorecompressError, match=says) as caught:
        corecompress.open_data(spec)
    assert "\n" not in str(caught.value)


def deb(files: dict[str, bytes]) -> bytes:
    tarred = io.BytesIO()
    with tarfile.open(fileobj=tarred, mode="w:xz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    made = b"!<arch>\n"
    for name, content in (("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), ("data.tar.xz", tarred.getvalue())):
        made += f"{name:16}{0:<12}{0:<6}{0:<6}{'100644':8}{len(content):<10}`\n".encode() + content
        made += b"\n" * (len(content) % 2)
    return made


def test_a_debian_package_is_fetched_checked_and_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORECOMPRESS_CACHE", str(tmp_path / "cache"))
    mirror = tmp_path / "mirror" / "pool"
    mirror.mkdir(parents=True)
    content = deb({"usr/share/x/a.txt": b"a", "usr/share/x/deep/b.txt": b"b", "usr/share/doc/c": b"c"})
    package = debian.Package("x", "1~2", "pool", hash_bytes(content))
    monkeypatch.setattr(debian, "MIRROR", (tmp_path / "mirror").as_uri())
    with pytest.raises(CorecompressError, match="put that file into"):
        debian.fetch_from_deb(package, "usr/share/x/")
    (mirror / package.file).write_bytes(content + b" ")
    with pytest.raises(CorecompressError, match="another SHA-256"):
        debian.fetch_from_deb(package, "usr/share/x/")
    (mirror / package.file).write_bytes(content)
    folder = debian.fetch_from_deb(package, "usr/share/x/")
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == {"a.txt": b"a", "deep/b.txt": b"b"}
    (mirror / package.file).unlink()
    assert debian.fetch_from_deb(package, "usr/share/x/") == folder
