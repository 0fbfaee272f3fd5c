"""Students of every family through the public door: layers and widths cut, saved, loaded; what can't be cut says so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES, save

import corecompress
from corecompress.errors import CorecompressError
from corecompress.training.quiet import quiet


def distilled(source: Path, options: str, data: str, out: Path, **more: Any) -> Any:
    """Run distill and load what came out with transformers alone."""
    corecompress.compress(source, out, f"distill({options})", data=data, evaluated=False, **more)
    return load(out)


def load(folder: Path) -> Any:
    import json

    import transformers

    name = json.loads((folder / "config.json").read_text())["architectures"][0]
    with quiet():
        model, found = getattr(transformers, name).from_pretrained(folder, output_loading_info=True)
    assert not found["missing_keys"], found
    assert not found["unexpected_keys"], found
    return model.eval()


def data_of(family: str, text: str, pictures: str) -> str:
    return pictures if family == "vit" else text


def size(model: Any) -> int:
    return sum(p.numel() for p in model.parameters())


# Enough to see that it runs; nothing is learned at this rate.
STILL = "steps=1, batch=4, learning_rate=1e-30, weight_decay=0.0"


WIDTHS = {
    "llama": "hidden=24, ffn=20, heads=2",
    "qwen2": "hidden=20, ffn=20, heads=2",
    "t5": "hidden=20, ffn=20, heads=3",
    "vit": "hidden=24, ffn=20, heads=3",
}
"""The others' heads are hidden / heads wide, so the hidden size says both."""


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_and_widths_are_cut(family: str, tmp_path: Path, text: str, pictures: str) -> None:
    source = save(tmp_path / "source", family)
    asked = WIDTHS.get(family, "hidden=16, ffn=20")
    student = distilled(source, f"layers=2, {asked}, {STILL}", data_of(family, text, pictures), tmp_path / "out")
    width = int(asked.split("hidden=")[1].split(",")[0])
    assert student.config.hidden_size == width
    assert {p.shape[-1] for name, p in student.named_parameters() if re.search("norm|ln_", name.lower())} == {width}
    assert 2 in {len(m) for m in student.modules() if isinstance(m, torch.nn.ModuleList)}
    assert size(student) < 0.5 * size(load(source))
    assert torch.isfinite(outputs(student, family)).all()


@pytest.mark.parametrize("family", ["gpt2", "bert", "t5"])
def test_layers_that_stay_are_the_teachers(family: str, tmp_path: Path, text: str) -> None:
    source = save(tmp_path / "source", family)
    student = distilled(source, f"layers=[0, 3], {STILL}", text, tmp_path / "out")
    kept, theirs = {"0": "0", "1": "3"}, load(source).state_dict()
    # The first number in a tensor's name is its block's.
    moved = {n: re.sub(r"\.(\d+)\.", lambda found: f".{kept[found[1]]}.", n, count=1) for n in student.state_dict()}
    assert sum(name != old for name, old in moved.items()) > 5
    # T5's table of position biases stands in the first block, whichever that is.
    assert [n for n, value in student.state_dict().items() if not torch.equal(value, theirs[moved[n]])] == []


def outputs(model: Any, family: str) -> torch.Tensor:
    torch.manual_seed(1)
    with torch.no_grad():
        if family == "vit":
            return model(pixel_values=torch.randn(2, 3, 16, 16)).logits
        ids = torch.randint(5, 60, (2, 12))
        found = model(input_ids=ids, **({"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}))
        return found["logits"] if "logits" in found else found["last_hidden_state"]


@pytest.mark.parametrize("family", ["llama", "gpt2", "bart", "vit"])
def test_the_cut_takes_what_does_nothing(family: str, tmp_path: Path, text: str, pictures: str) -> None:
    """Neurons without effect are cut first, so the student computes the same."""

    def make_useless(model: Any) -> None:
        from corecompress_distill.axes import find_axes
        from corecompress_distill.structure import find_stacks

        axes = find_axes(model.eval(), find_stacks(model))
        tensors = dict(model.named_parameters())
        for (name, dim), kind in axes.kinds.items():
            if kind == "ffn" and name in tensors:  # 16 neurons that are zero whatever comes in
                tensors[name].data.index_fill_(dim, torch.arange(5, 21), 0.0)

    source = save(tmp_path / "source", family, make_useless)
    teacher = load(source)
    ffn = (128 if family == "gpt2" else 48) - 16
    student = distilled(source, f"ffn={ffn}, {STILL}", data_of(family, text, pictures), tmp_path / "out")
    assert size(student) < size(teacher)
    torch.testing.assert_close(outputs(student, family), outputs(teacher, family), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_layers_without_effect_are_the_least_important(family: str, tmp_path: Path, text: str) -> None:
    def silence(model: Any) -> None:
        from corecompress_distill.structure import find_stacks

        for stack in find_stacks(model):
            for name, weight in model.get_submodule(f"{stack.path}.2").named_parameters():
                if weight.ndim == 2 or name.endswith("bias"):
                    weight.zero_()

    source = save(tmp_path / "source", family, silence)
    student = distilled(source, f"layers=3, choose=importance, {STILL}", text, tmp_path / "out")
    torch.testing.assert_close(outputs(student, family), outputs(load(source), family), rtol=1e-4, atol=1e-4)


def test_encoder_and_decoder_are_cut_apart(tmp_path: Path, text: str) -> None:
    source = save(tmp_path / "source", "bart")
    student = distilled(source, f"layers=3, decoder_layers=1, {STILL}", text, tmp_path / "out")
    assert (len(student.model.encoder.layers), len(student.model.decoder.layers)) == (3, 1)
    assert (student.config.encoder_layers, student.config.decoder_layers) == (3, 1)


def test_lists_of_the_configuration_follow_the_layers(tmp_path: Path, text: str) -> None:
    source = save(tmp_path / "source", "qwen2")
    student = distilled(source, f"layers=2, {STILL}", text, tmp_path / "out")
    assert len(student.config.layer_types) == 2


def test_a_student_of_ones_own(tmp_path: Path, text: str) -> None:
    teacher = save(tmp_path / "teacher", "llama")
    small = tmp_path / "small"
    distilled(teacher, f"layers=1, {STILL}", text, small)
    again = distilled(teacher, f'student="{small}", {STILL}', text, tmp_path / "again")
    torch.testing.assert_close(outputs(again, "llama"), outputs(load(small), "llama"))
    config = tmp_path / "fresh" / "config.json"
    config.parent.mkdir()
    config.write_text((small / "config.json").read_text())
    fresh = distilled(teacher, f'student="{config}", {STILL}', text, tmp_path / "from-config")
    assert size(fresh) == size(again)
    assert not torch.equal(outputs(fresh, "llama"), outputs(again, "llama"))


def test_a_random_start_has_the_same_shape(tmp_path: Path, text: str) -> None:
    teacher = save(tmp_path / "teacher", "bert")
    one = distilled(teacher, f"layers=2, start=random, {STILL}", text, tmp_path / "one")
    two = distilled(teacher, f"layers=2, start=random, {STILL}", text, tmp_path / "two", seed=1)
    assert one.config.num_hidden_layers == 2
    assert not torch.equal(outputs(one, "bert"), outputs(two, "bert"))


def test_bfloat16_stays_bfloat16(tmp_path: Path, text: str) -> None:
    source = save(tmp_path / "source", "llama", lambda model: model.to(torch.bfloat16))
    corecompress.compress(source, tmp_path / "out", f"distill(layers=2, {STILL})", data=text, evaluated=False)
    assert {row.dtype for row in corecompress.inspect(tmp_path / "out").tensors} == {"BF16"}


def refusal(source: Path, options: str, data: str | None, tmp_path: Path) -> str:
    out = tmp_path / "refused"
    with pytest.raises(CorecompressError) as caught:
        corecompress.compress(source, out, f"distill({options})", data=data, evaluated=False, force=True)
    assert not out.exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_cannot_be_cut_says_what_can(tmp_path: Path, text: str) -> None:
    albert = save(tmp_path / "albert", "albert")
    assert "student=FOLDER" in refusal(albert, "layers=1", text, tmp_path)
    bert = save(tmp_path / "bert", "bert")
    assert "4 layers; write 1 to 3" in refusal(bert, "layers=9", text, tmp_path)
    assert "4 layers" in refusal(bert, "layers=0", text, tmp_path)
    assert "0 to 3" in refusal(bert, "layers=[1, 7]", text, tmp_path)
    assert "as large as the teacher" in refusal(bert, "layers=4", text, tmp_path)
    assert "hidden/heads wide" in refusal(bert, "hidden=20", text, tmp_path)
    assert "has 48; write less" in refusal(bert, "ffn=50", text, tmp_path)
    assert "no separate decoder" in refusal(bert, "decoder_layers=2", text, tmp_path)
    llama = save(tmp_path / "llama", "llama")
    assert "a multiple of 2" in refusal(llama, "heads=3", text, tmp_path)


def test_another_vocabulary_is_refused_by_name(tmp_path: Path, text: str) -> None:
    import json

    teacher, other = save(tmp_path / "teacher", "llama"), save(tmp_path / "other", "llama")
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["kaba"], vocabulary["kado"] = vocabulary["kado"], vocabulary["kaba"]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    said = refusal(teacher, f'student="{other}"', text, tmp_path)
    assert "kaba" in said
    assert str(other) in said
    config = json.loads((other / "config.json").read_text()) | {"vocab_size": 99}
    (other / "config.json").write_text(json.dumps(config))
    assert "vocabulary of 99" in refusal(teacher, f'student="{other}"', text, tmp_path)
