"""Compressed folders through transformers' own door, from_pretrained: each test compares with the plain checkpoint."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import safetensors.torch as st  # noqa: E402
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM  # noqa: E402

import corecompress  # noqa: E402
from corecompress import CorecompressError, CorruptArtifact  # noqa: E402
from corecompress.checkpoint import MANIFEST  # noqa: E402

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": 99}
DECODER = {**SMALL, "num_key_value_heads": 2, "max_position_embeddings": 64, "head_dim": 8}
EXPERTS = {**DECODER, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "decoder_sparse_step": 1}
VISION = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 16,
}
CLIP = {
    "text_config": {**SMALL, "max_position_embeddings": 20, "projection_dim": 16},
    "vision_config": {**VISION, "patch_size": 8, "projection_dim": 16},
    "projection_dim": 16,
}
WAVE = {"conv_dim": [16, 16], "conv_kernel": [4, 4], "conv_stride": [2, 2], "num_feat_extract_layers": 2}

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertForMaskedLM", SMALL),
    "llama, tied": ("LlamaForCausalLM", {**DECODER, "tie_word_embeddings": True}),
    "llama, untied": ("LlamaForCausalLM", DECODER),
    "mixtral: merged experts": ("MixtralForCausalLM", {**DECODER, "num_local_experts": 3, "num_experts_per_tok": 2}),
    "qwen3-moe: merged experts": ("Qwen3MoeForCausalLM", {**EXPERTS, "num_experts": 3}),
    "olmoe: merged experts": ("OlmoeForCausalLM", {**DECODER, "num_experts": 3}),
    "gpt2: transposed layers": (
        "GPT2LMHeadModel",
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 99, "n_positions": 32},
    ),
    "t5: three tied": (
        "T5ForConditionalGeneration",
        {"d_model": 32, "d_ff": 48, "num_layers": 2, "num_heads": 4, "d_kv": 8, "vocab_size": 99},
    ),
    "mamba: A_log, D": ("MambaForCausalLM", {**SMALL, "state_size": 4}),
    "vit: cls_token": ("ViTForImageClassification", {**VISION, "patch_size": 8}),
    "siglip: in_proj_bias": ("SiglipVisionModel", {**VISION, "patch_size": 8}),
    "clip: logit_scale of no dimension": ("CLIPModel", CLIP),
    "resnet: int64 buffers": (
        "ResNetForImageClassification",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]},
    ),
    "wav2vec2: parametrized weights": (
        "Wav2Vec2Model",
        {**SMALL, **WAVE, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4},
    ),
    "llava: renamed keys": (
        "LlavaForConditionalGeneration",
        {
            "text_config": {"model_type": "llama", **DECODER},
            "vision_config": {"model_type": "clip_vision_model", **VISION, "patch_size": 8},
        },
    ),
    "detr: renamed keys": (
        "DetrForObjectDetection",
        {
            **{"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32},
            **{
                "encoder_attention_heads": 4,
                "decoder_attention_heads": 4,
                "num_queries": 5,
                "use_timm_backbone": False,
            },
            "backbone_config": {
                "model_type": "resnet",
                "embedding_size": 8,
                "hidden_sizes": [8, 16],
                "depths": [1, 1],
                "out_features": ["stage2"],
            },
            "backbone": None,
        },
    ),
}


def build(architecture: str, options: dict[str, Any], seed: int = 0) -> Any:
    torch.manual_seed(seed)
    cls = getattr(transformers, architecture)
    model = cls(cls.config_class(**options))
    with torch.no_grad():
        for parameter in model.parameters():  # nothing that a fresh model would have as well
            parameter.copy_(torch.randn(parameter.shape) * 0.1)
    return model


def save(architecture: str, options: dict[str, Any], folder: Path, dtype: Any = None, **kwargs: Any) -> Path:
    model = build(architecture, options)
    (model if dtype is None else model.to(dtype)).save_pretrained(folder, **kwargs)
    return folder


def compress(folder: Path, **kwargs: Any) -> Path:
    out = folder.with_name(folder.name + "-small")
    corecompress.compress(folder, out, jobs=1, **kwargs)
    return out


def rewrite(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change the tensors of a plain checkpoint."""
    tensors = {name: tensor.clone() for name, tensor in change(st.load_file(folder / "model.safetensors")).items()}
    st.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def bits(tensor: Any) -> Any:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def everything(model: Any) -> dict[str, Any]:
    """All tensors, by every name that they have; buffers that aren't saved included."""
    return dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))


def assert_same(ours: Any, plain: Any) -> None:
    assert type(ours) is type(plain)
    mine, theirs = everything(ours), everything(plain)
    assert mine.keys() == theirs.keys()
    for name, tensor in theirs.items():
        got = mine[name]
        assert (got.dtype, got.shape, got.requires_grad) == (tensor.dtype, tensor.shape, tensor.requires_grad), name
        assert type(got) is type(tensor), name
        assert torch.equal(bits(got), bits(tensor)), name
    assert shared(mine) == shared(theirs)
    known = {**plain.config.to_dict(), "_name_or_path": None}
    assert {**ours.config.to_dict(), "_name_or_path": None} == known
    assert not getattr(ours, "is_quantized", False)
    assert not hasattr(ours, "hf_quantizer")
    assert ours.training == plain.training


def shared(tensors: dict[str, Any]) -> set[frozenset[str]]:
    """Names that stand for the same memory."""
    at: dict[int, set[str]] = {}
    for name, tensor in tensors.items():
        if tensor.numel():
            at.setdefault(tensor.data_ptr(), set()).add(name)
    return {frozenset(names) for names in at.values()}


def both(load: Any, ours: Path, plain: Path, **kwargs: Any) -> list[Any]:
    """Load both; weights that the checkpoint doesn't have are drawn from the same seed."""
    models = []
    for source in (ours, plain):
        torch.manual_seed(1)
        models.append(load(source, **kwargs))
    return models


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A plain masked language model with a few other files, and its compressed folder; read only."""
    folder = save("BertForMaskedLM", SMALL, tmp_path_factory.mktemp("bert") / "plain")
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n" + "".join(f"w{n}\n" for n in range(94)))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    (folder / "README.md").write_text("# A model\n")
    return folder, compress(folder)


@pytest.fixture
def copy(bert: tuple[Path, Path], tmp_path: Path) -> Path:
    """A compressed folder that the test may damage."""
    return Path(shutil.copytree(bert[1], tmp_path / "damaged"))


# The same model comes out.


@pytest.mark.parametrize("name", MODELS)
def test_every_tensor_is_as_the_plain_checkpoint_gives_it(name: str, tmp_path: Path) -> None:
    architecture, options = MODELS[name]
    folder = save(architecture, options, tmp_path / "plain")
    out, cls = compress(folder), getattr(transformers, architecture)
    for kwargs in ({}, {"dtype": torch.float32}, {"dtype": torch.bfloat16}):
        plain = cls.from_pretrained(folder, **kwargs)
        ours, said = cls.from_pretrained(out, output_loading_info=True, **kwargs)
        assert_same(ours, plain)
        assert not said["missing_keys"]
        assert not said["unexpected_keys"]


@pytest.mark.parametrize("name", ["bert", "mixtral: merged experts", "t5: three tied", "llava: renamed keys"])
def test_saving_writes_an_ordinary_checkpoint(name: str, tmp_path: Path) -> None:
    architecture, options = MODELS[name]
    folder, cls = save(architecture, options, tmp_path / "plain", torch.bfloat16), getattr(transformers, architecture)
    cls.from_pretrained(compress(folder)).save_pretrained(tmp_path / "again")
    cls.from_pretrained(folder).save_pretrained(tmp_path / "expected")
    assert sorted(p.name for p in (tmp_path / "again").iterdir()) == sorted(
        p.name for p in (tmp_path / "expected").iterdir()
    )
    for file in (tmp_path / "expected").iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes(), file.name
    assert_same(cls.from_pretrained(tmp_path / "again"), cls.from_pretrained(folder))


def test_auto_classes_find_the_model(bert: tuple[Path, Path]) -> None:
    plain, out = bert
    for auto in (AutoModelForMaskedLM, AutoModel):
        assert_same(*both(auto.from_pretrained, out, plain))


def test_loading_info_is_that_of_the_plain_checkpoint(bert: tuple[Path, Path]) -> None:
    infos = [AutoModel.from_pretrained(folder, output_loading_info=True)[1] for folder in bert]
    assert infos[0] == infos[1]
    assert infos[1]["unexpected_keys"]


def test_a_base_model_loads_into_a_model_with_a_head_and_the_reverse(tmp_path: Path) -> None:
    folder = save("BertModel", SMALL, tmp_path / "plain")
    out = compress(folder)
    models = both(transformers.BertForMaskedLM.from_pretrained, out, folder)
    assert_same(*models)
    models[0].save_pretrained(tmp_path / "with head")
    with_head = tmp_path / "with head"
    assert_same(*both(transformers.BertModel.from_pretrained, compress(with_head), with_head))


def test_the_pipeline_answers_the_same(bert: tuple[Path, Path]) -> None:
    answers = [transformers.pipeline("fill-mask", model=str(folder))("w1 [MASK] w3") for folder in bert]
    assert answers[0] == answers[1]


def test_the_outputs_are_the_same(bert: tuple[Path, Path]) -> None:
    tokens = torch.arange(12).reshape(2, 6)
    with torch.no_grad():
        plain, ours = (AutoModelForMaskedLM.from_pretrained(folder)(tokens).logits for folder in bert)
    assert torch.equal(plain, ours)


def test_the_real_checkpoint(minilm: Path, tmp_path: Path) -> None:
    out = tmp_path / "small"
    corecompress.compress(minilm, out)
    assert_same(AutoModel.from_pretrained(out), AutoModel.from_pretrained(minilm))
    assert AutoModel.from_pretrained(out).dtype == torch.float32


# Checkpoints that aren't quite what their model would save.


def test_legacy_names_and_keys_that_the_model_does_not_know(tmp_path: Path) -> None:
    folder = save("BertForMaskedLM", SMALL, tmp_path / "plain")

    def as_in_2018(tensors: dict[str, Any]) -> dict[str, Any]:
        old = {
            k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
            for k, v in tensors.items()
        }
        return old | {
            "bert.embeddings.position_ids": torch.arange(512)[None],
            "cls.seq_relationship.weight": torch.ones(2, 32),
        }

    rewrite(folder, as_in_2018)
    out = compress(folder)
    for auto in (AutoModelForMaskedLM, AutoModel):
        (ours, said), (plain, expected) = both(auto.from_pretrained, out, folder, output_loading_info=True)
        assert_same(ours, plain)
        assert said == expected


@pytest.mark.parametrize("twice", [True, False])
def test_tied_tensors_that_are_stored_once_or_twice(twice: bool, tmp_path: Path) -> None:
    folder = save("LlamaForCausalLM", {**DECODER, "tie_word_embeddings": True}, tmp_path / "plain")
    if twice:
        rewrite(folder, lambda tensors: tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]})
    out = compress(folder)
    records = json.loads((out / MANIFEST).read_text())["tensors"]
    assert any(record["same_as"] for record in records) == twice
    assert_same(AutoModelForCausalLM.from_pretrained(out), AutoModelForCausalLM.from_pretrained(folder))


def test_equal_tensors_of_an_untied_model_share_no_memory(tmp_path: Path) -> None:
    folder = save("LlamaForCausalLM", DECODER, tmp_path / "plain")
    rewrite(folder, lambda tensors: tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]})
    model = AutoModelForCausalLM.from_pretrained(compress(folder))
    assert model.lm_head.weight.data_ptr() != model.model.embed_tokens.weight.data_ptr()
    assert_same(model, AutoModelForCausalLM.from_pretrained(folder))


@pytest.mark.parametrize("named", [True, False])
def test_mixed_dtypes_and_what_auto_means(named: bool, tmp_path: Path) -> None:
    folder = save("LlamaForCausalLM", DECODER, tmp_path / "plain", torch.float16)
    turn = [torch.bfloat16, torch.float32, torch.float16, torch.float64]
    rewrite(
        folder,
        lambda tensors: {name: tensor.to(turn[n % 4]) for n, (name, tensor) in enumerate(sorted(tensors.items()))},
    )
    config = json.loads((folder / "config.json").read_text())
    if not named:
        del config["dtype"]
        (folder / "config.json").write_text(json.dumps(config))
    out = compress(folder)
    for kwargs in ({}, {"dtype": "auto"}, {"dtype": "float32"}, {"dtype": torch.bfloat16}):
        plain = AutoModelForCausalLM.from_pretrained(folder, **kwargs)
        assert_same(AutoModelForCausalLM.from_pretrained(out, **kwargs), plain)


@pytest.mark.filterwarnings("ignore:Casting complex values to real")
@pytest.mark.parametrize(
    "dtype", ["float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "uint16", "uint64", "int8", "bool", "complex64"]
)
def test_rare_dtypes(dtype: str, tmp_path: Path) -> None:
    folder = save("LlamaForCausalLM", DECODER, tmp_path / "plain")
    rare = torch.ones(48, 32).to(getattr(torch, dtype))
    rewrite(folder, lambda tensors: tensors | {"model.layers.0.mlp.up_proj.weight": rare})
    out = compress(folder)
    assert_same(AutoModelForCausalLM.from_pretrained(out), AutoModelForCausalLM.from_pretrained(folder))


@pytest.mark.parametrize("by_hand", [True, False])
def test_sharded_artifacts(by_hand: bool, tmp_path: Path) -> None:
    folder = save("MixtralForCausalLM", MODELS["mixtral: merged experts"][1], tmp_path / "plain", max_shard_size="40KB")
    out = compress(folder, shard_bytes=30_000)
    assert len(list(out.glob("corecompress-*.safetensors"))) > 2
    load = corecompress.load if by_hand else AutoModelForCausalLM.from_pretrained
    assert_same(load(out), AutoModelForCausalLM.from_pretrained(folder))
    assert_same(transformers.MixtralForCausalLM.from_pretrained(out), AutoModelForCausalLM.from_pretrained(folder))


def test_empty_tensors(tmp_path: Path) -> None:
    """Of a model type of its own: none that transformers has holds a tensor of no elements."""

    class Hollow(transformers.BertModel):  # type: ignore[misc]
        def __init__(self, config: Any):
            super().__init__(config)
            self.hollow = torch.nn.Parameter(torch.empty(0, 3))
            self.register_buffer("mask", torch.empty(3, 0, dtype=torch.bool))

    Hollow(transformers.BertConfig(**SMALL)).save_pretrained(tmp_path / "plain")
    out = compress(tmp_path / "plain")
    for dtype in (torch.float32, torch.bfloat16):
        assert_same(*both(Hollow.from_pretrained, out, tmp_path / "plain", dtype=dtype))


@pytest.mark.skipif(not hasattr(transformers.PreTrainedConfig, "extra_files"), reason="new in transformers 5.23")
def test_weight_files_that_a_models_class_adds(tmp_path: Path) -> None:
    class WithHeadConfig(transformers.BertConfig):  # type: ignore[misc]
        extra_files = ("head.safetensors",)

    class WithHead(transformers.BertModel):  # type: ignore[misc]
        config_class = WithHeadConfig

        def __init__(self, config: Any):
            super().__init__(config)
            self.head = torch.nn.Linear(32, 3, bias=False)

    folder = save("BertModel", SMALL, tmp_path / "plain")
    out = compress(folder)
    for place in (folder, out):
        st.save_file({"head.weight": torch.arange(96.0).reshape(3, 32)}, place / "head.safetensors")
    ours = WithHead.from_pretrained(out)
    assert_same(ours, WithHead.from_pretrained(folder))
    assert ours.head.weight[0, 1] == 1


def test_the_language_model_alone_of_one_that_sees(tmp_path: Path) -> None:
    """AutoModelForCausalLM goes on with the config's inner text_config."""
    vision = {"hidden_size": 32, "num_heads": 4, "depth": 1, "intermediate_size": 48, "out_hidden_size": 32}
    text = {**DECODER, "layer_types": ["full_attention", "linear_attention"]}
    folder = save("Qwen3_5ForConditionalGeneration", {"text_config": text, "vision_config": vision}, tmp_path / "plain")
    for shard_bytes in (1_000_000, 60_000):
        out = compress(folder, shard_bytes=shard_bytes, force=True)
        ours, plain = both(AutoModelForCausalLM.from_pretrained, out, folder)
        assert type(ours) is transformers.Qwen3_5ForCausalLM
        assert_same(ours, plain)


def test_a_subfolder(bert: tuple[Path, Path]) -> None:
    plain, out = bert
    ours = AutoModelForMaskedLM.from_pretrained(out.parent, subfolder=out.name)
    assert_same(ours, AutoModelForMaskedLM.from_pretrained(plain))


def test_a_user_key_mapping_sees_the_original_names(tmp_path: Path) -> None:
    folder = save("LlamaForCausalLM", DECODER, tmp_path / "plain")
    rewrite(
        folder, lambda tensors: {name.replace("self_attn", "attention"): tensor for name, tensor in tensors.items()}
    )
    mapping = {r"\.attention\.": ".self_attn."}
    models = [
        AutoModelForCausalLM.from_pretrained(source, key_mapping=mapping) for source in (compress(folder), folder)
    ]
    assert_same(*models)


def test_a_shape_that_differs_is_told_as_for_a_plain_checkpoint(tmp_path: Path) -> None:
    folder = save("BertForSequenceClassification", {**SMALL, "num_labels": 3}, tmp_path / "plain")
    out = compress(folder)
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        transformers.BertForSequenceClassification.from_pretrained(out, num_labels=5)
    wanted = {"num_labels": 5, "ignore_mismatched_sizes": True}
    assert_same(*both(transformers.BertForSequenceClassification.from_pretrained, out, folder, **wanted))


@pytest.mark.parametrize("device_map", ["cpu", "auto", {"": "cpu"}])
def test_device_maps(device_map: Any, bert: tuple[Path, Path]) -> None:
    pytest.importorskip("accelerate")
    models = [AutoModelForMaskedLM.from_pretrained(folder, device_map=device_map) for folder in bert]
    assert_same(*models)


def test_disk_offload(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    folder = save("LlamaForCausalLM", DECODER, tmp_path / "plain")
    out = compress(folder)
    device_map = {"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk", "model.norm": "cpu"}
    device_map |= {"model.rotary_emb": "cpu", "lm_head": "disk"}
    tokens = torch.arange(12).reshape(2, 6)
    model = AutoModelForCausalLM.from_pretrained(out, device_map=device_map, offload_folder=tmp_path / "offload")
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(folder)(tokens).logits
        assert torch.equal(model(tokens).logits, expected)


@pytest.mark.parametrize("variable", ["HF_DEACTIVATE_ASYNC_LOAD"])
def test_loading_without_threads(variable: str, bert: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "1")
    assert_same(*(AutoModelForMaskedLM.from_pretrained(folder) for folder in reversed(bert)))


# Components from elsewhere.

PLUGIN = """
import numpy as np
from corecompress import Component, hookimpl
from corecompress.components import TensorCompressor

class Store(TensorCompressor):
    def __init__(self, options):
        pass
    def encode(self, tensor):
        return tensor.data.tobytes()
    def decode(self, payload, info, threads=1):
        return np.frombuffer(payload, np.uint8)

class Xor(Store):
    def prepare(self, job):
        return bytes([90])
    def restore(self, state):
        (self.key,) = state
    def encode(self, tensor):
        return (tensor.data ^ np.uint8(self.key)).tobytes()
    def decode(self, payload, info, threads=1):
        return np.frombuffer(payload, np.uint8) ^ np.uint8(self.key)

class Fragile(Store):
    def encode(self, tensor):
        return b"M" + tensor.data.tobytes()
    def decode(self, payload, info, threads=1):
        if payload[0] != ord("M"):
            raise RuntimeError("no M")
        return np.frombuffer(payload[1:], np.uint8)

@hookimpl
def compressor_components():
    return [Component(name.lower(), "{module}:" + name, "for tests") for name in ("Store", "Xor", "Fragile")]
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    from corecompress.plugins import registry

    name = f"plugin_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(PLUGIN.replace("{module}", name))
    monkeypatch.setenv("CORECOMPRESS_PLUGIN_FILES", str(tmp_path / f"{name}.py"))
    registry.cache_clear()
    yield name
    sys.modules.pop(name, None)
    monkeypatch.undo()
    registry.cache_clear()


@pytest.mark.parametrize("recipe", ["xor", "store", "fragile"])
def test_a_state_and_payloads_of_another_component(
    recipe: str, plugin: str, bert: tuple[Path, Path], tmp_path: Path
) -> None:
    corecompress.compress(bert[0], tmp_path / "out", recipe=recipe)
    ours, said = AutoModelForMaskedLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert_same(ours, AutoModelForMaskedLM.from_pretrained(bert[0]))
    assert not said["unexpected_keys"]
    assert all(parameter.is_contiguous() and parameter.data_ptr() % 16 == 0 for parameter in ours.parameters())
    with torch.no_grad():
        ours.bert.embeddings.word_embeddings.weight.add_(1)  # it may be written to


def test_a_missing_plugin_is_named(
    plugin: str, bert: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from corecompress.plugins import registry

    corecompress.compress(bert[0], tmp_path / "out", recipe="xor")
    monkeypatch.delenv("CORECOMPRESS_PLUGIN_FILES")
    registry.cache_clear()
    with pytest.raises(CorecompressError, match=r"needs compressor 'xor'.*mend") as told:
        AutoModel.from_pretrained(tmp_path / "out")
    assert len(str(told.value).splitlines()) == 1


def test_a_decoder_that_stumbles_over_damage(plugin: str, bert: tuple[Path, Path], tmp_path: Path) -> None:
    corecompress.compress(bert[0], tmp_path / "out", recipe="fragile")
    file = tmp_path / "out" / "corecompress.safetensors"
    content = file.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    name = "bert.embeddings.word_embeddings.weight"
    flip(file, start + json.loads(content[8:start])[f"{name}_cc_data"]["data_offsets"][0] + 4)
    with pytest.raises(CorruptArtifact, match=f"tensor '{name}' is damaged"):
        AutoModel.from_pretrained(tmp_path / "out")


# Damage.


def flip(file: Path, position: int, bit: int = 0) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 1 << bit
    file.write_bytes(content)


def test_a_flipped_bit_in_any_file_is_an_error_that_names_it(bert: tuple[Path, Path], tmp_path: Path) -> None:
    for file in sorted(path for path in bert[1].rglob("*") if path.is_file()):
        damaged = Path(shutil.copytree(bert[1], tmp_path / file.name))
        flip(damaged / file.name, file.stat().st_size * 2 // 3, bit=1)
        if file.name == "README.md":
            with pytest.warns(UserWarning, match="README.md: is not as it was written"):
                AutoModel.from_pretrained(damaged)
        elif file.name == "corecompress.safetensors":
            with pytest.raises(CorruptArtifact, match=r"tensor '.*' (is damaged|does not decode)"):
                AutoModel.from_pretrained(damaged)
        else:
            with pytest.raises(Exception, match=file.name):
                AutoModel.from_pretrained(damaged)


def test_every_part_of_the_payload_file_is_covered(copy: Path) -> None:
    """Length, header, padding, numbers, payloads; of tensors that the model uses and of those that it doesn't."""
    file = copy / "corecompress.safetensors"
    intact, size = file.read_bytes(), file.stat().st_size
    start = 8 + int.from_bytes(intact[:8], "little")
    placed = json.loads(intact[8:start])
    begins = [start + entry["data_offsets"][0] for name, entry in placed.items() if name != "__metadata__"]
    inside = [begin + shift for begin in begins for shift in (0, 2, 4) if begin + shift < size]
    for position in [0, 7, 8, start // 2, start - 1, *inside[:: max(1, len(inside) // 50)], size - 1]:
        flip(file, position, bit=position % 8)
        with pytest.raises(
            CorruptArtifact, match=r"tensor '.*' (is damaged|does not decode)|corecompress\.safetensors"
        ):
            AutoModel.from_pretrained(copy)
        file.write_bytes(intact)
    for length in (size - 1, start + 1, start - 1, 4, 0):
        file.write_bytes(intact[:length])
        with pytest.raises(CorruptArtifact, match=r"corecompress\.safetensors"):
            AutoModel.from_pretrained(copy)


def test_flips_all_over_the_config_never_give_a_model(copy: Path) -> None:
    file = copy / "config.json"
    intact = file.read_bytes()
    for position in range(0, len(intact), max(1, len(intact) // 80)):
        flip(file, position, bit=position % 7)
        with pytest.raises(Exception):  # noqa: B017, PT011  (transformers' own, where it stumbles first)
            AutoModel.from_pretrained(copy)
        file.write_bytes(intact)


def test_a_value_of_the_config_that_would_break_the_model_is_named(copy: Path) -> None:
    file = copy / "config.json"
    file.write_text(file.read_text().replace('"hidden_act": "gelu"', '"hidden_act": "gelt"'))
    with pytest.raises(CorruptArtifact, match=r"config\.json: is damaged or was edited"):
        AutoModel.from_pretrained(copy)


def test_a_record_number_changed_into_another_tied_ones(tmp_path: Path) -> None:
    folder = save("LlamaForCausalLM", DECODER, tmp_path / "plain")
    first, second = torch.randn(48, 32), torch.randn(48, 32)

    def in_pairs(tensors: dict[str, Any]) -> dict[str, Any]:
        for layer in (0, 1):
            tensors[f"model.layers.{layer}.mlp.gate_proj.weight"] = first
            tensors[f"model.layers.{layer}.mlp.up_proj.weight"] = second
        return tensors

    rewrite(folder, in_pairs)
    out = compress(folder)
    records = json.loads((out / MANIFEST).read_text())["tensors"]
    one, other = (number for number, record in enumerate(records) if record["same_as"])
    file = out / "corecompress.safetensors"
    content = file.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    at = start + json.loads(content[8:start])[records[one]["name"] + "_cc_data"]["data_offsets"][0]
    assert content[at : at + 4] == one.to_bytes(4, "little")
    file.write_bytes(content[:at] + other.to_bytes(4, "little") + content[at + 4 :])
    with pytest.raises(CorruptArtifact, match=f"tensor '{records[one]['name']}' is damaged"):
        AutoModelForCausalLM.from_pretrained(out)


@pytest.mark.parametrize("file", [MANIFEST, "corecompress.safetensors", "config.json"])
def test_a_file_that_is_missing(file: str, copy: Path) -> None:
    (copy / file).unlink()
    with pytest.raises((CorecompressError, OSError, ValueError), match=file):
        AutoModel.from_pretrained(copy)


def test_a_shard_that_is_missing_or_an_index_that_is_damaged(tmp_path: Path) -> None:
    folder = save("LlamaForCausalLM", DECODER, tmp_path / "plain")
    out = compress(folder, shard_bytes=30_000)
    index = out / "corecompress.safetensors.index.json"
    for position in (3, index.stat().st_size // 2, index.stat().st_size - 3):
        flip(index, position, bit=1)
        with pytest.raises(CorruptArtifact, match=r"corecompress\.safetensors\.index\.json"):
            AutoModelForCausalLM.from_pretrained(out)
        with pytest.raises((CorruptArtifact, ValueError, OSError)):
            transformers.LlamaForCausalLM.from_pretrained(out)
        flip(index, position, bit=1)
    shard = sorted(out.glob("corecompress-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(CorruptArtifact, match=f"{shard.name}: is missing"):
        AutoModelForCausalLM.from_pretrained(out)


@pytest.mark.parametrize("method", ["corecompresr", "gptqq", ""])
def test_another_method_never_gives_random_weights(method: str, copy: Path) -> None:
    file = copy / "config.json"
    file.write_text(file.read_text().replace('"quant_method": "corecompress"', f'"quant_method": "{method}"'))
    with pytest.raises(OSError, match=r"model\.safetensors"):
        AutoModel.from_pretrained(copy)


def test_another_payload_name_is_refused(copy: Path) -> None:
    file = copy / "config.json"
    file.write_text(file.read_text().replace('"corecompress.safetensors"', '"../corecompress.safetensors"'))
    with pytest.raises(CorruptArtifact, match=r"config\.json"):
        AutoModel.from_pretrained(copy)


def test_files_that_were_never_fetched_are_no_matter(copy: Path, bert: tuple[Path, Path]) -> None:
    for name in ("vocab.txt", "tokenizer_config.json", "README.md", "README.original.md"):
        (copy / name).unlink()
    assert_same(*both(AutoModel.from_pretrained, copy, bert[0]))


# The hub.

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def as_snapshot(folder: Path, cache: Path, without: tuple[str, ...] = ()) -> None:
    """Lay a folder out as huggingface_hub's cache of org/small."""
    repository = cache / "models--org--small"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    snapshot = repository / "snapshots" / COMMIT
    shutil.copytree(folder, snapshot)
    for name in without:
        (snapshot / name).unlink()


def test_a_hub_id_from_the_cache(bert: tuple[Path, Path], tmp_path: Path) -> None:
    as_snapshot(bert[1], tmp_path, without=("vocab.txt", "tokenizer_config.json", "README.md", "README.original.md"))
    plain = transformers.BertForMaskedLM.from_pretrained(bert[0])
    assert_same(AutoModelForMaskedLM.from_pretrained("org/small", cache_dir=tmp_path), plain)
    for name in ("org/small", "org/small@main"):
        assert_same(corecompress.load(name, cache_dir=tmp_path), plain)


def test_a_snapshot_without_manifest_says_what_is_missing(bert: tuple[Path, Path], tmp_path: Path) -> None:
    as_snapshot(bert[1], tmp_path, without=(MANIFEST,))
    with pytest.raises(CorecompressError, match=f"org/small: its {MANIFEST} can't be had") as told:
        AutoModel.from_pretrained("org/small", cache_dir=tmp_path)
    assert len(str(told.value).splitlines()) == 1


def serve(folder: Path, asked: list[str]) -> ThreadingHTTPServer:
    """A hub that has one repository, org/small, for those who bring a token."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            name = self.path.partition("?")[0].rpartition(f"/resolve/{COMMIT}/")[2]
            if self.headers.get("Authorization") != "Bearer secret":
                return self.answer(401, b"")
            if self.path.startswith("/api/models/org/small"):
                return self.answer(200, json.dumps({"id": "org/small", "sha": COMMIT, "siblings": []}).encode())
            if not (folder / name).is_file():
                return self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
            asked.append(name)
            content = (folder / name).read_bytes()
            return self.answer(200, content, {"X-Repo-Commit": COMMIT, "ETag": f'"{hash(content):x}"'})

        def answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for key, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def test_from_the_hub_with_a_token(bert: tuple[Path, Path], tmp_path: Path) -> None:
    """transformers fetches what it knows of; the manifest comes from the same commit, with the same token."""
    asked: list[str] = []
    server = serve(bert[1], asked)
    done = run(
        f"""
        from transformers import AutoModel
        model = AutoModel.from_pretrained("org/small", token="secret", cache_dir={str(tmp_path)!r})
        print(model.embeddings.word_embeddings.weight.sum().item())
        """,
        HF_ENDPOINT=f"http://127.0.0.1:{server.server_port}",
        HF_HUB_OFFLINE="0",
        HF_HUB_DISABLE_XET="1",
        HF_HUB_DISABLE_TELEMETRY="1",
    )
    server.shutdown()
    assert done.returncode == 0, done.stderr
    weight = AutoModel.from_pretrained(bert[0]).embeddings.word_embeddings.weight
    assert done.stdout.split() == [str(weight.sum().item())]
    assert {"config.json", MANIFEST, "corecompress.safetensors"} <= set(asked)


# Several processes.

PARALLEL = """
import sys, torch
from transformers import AutoModelForCausalLM
from transformers.distributed import DistributedConfig
def load(folder):
    config = DistributedConfig(tp_size=2, tp_plan="auto") if sys.argv[3] == "tp" else DistributedConfig(fsdp_size=2)
    return AutoModelForCausalLM.from_pretrained(folder, distributed_config=config)
def local(model):
    return {name: t.to_local() if hasattr(t, "to_local") else t for name, t in model.state_dict().items()}
ours, plain = local(load(sys.argv[1])), local(load(sys.argv[2]))
assert sum(tensor.numel() for tensor in ours.values()) < 0.8 * int(sys.argv[4])
assert all(torch.equal(ours[name], plain[name]) for name in plain), "other tensors"
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", ["tp", "fsdp"])
def test_tensor_parallel_and_sharded_loading(way: str, tmp_path: Path) -> None:
    options = {**DECODER, "vocab_size": 100, "num_local_experts": 4, "num_experts_per_tok": 2}
    folder = save("MixtralForCausalLM", options, tmp_path / "plain")
    size = sum(tensor.numel() for tensor in st.load_file(folder / "model.safetensors").values())
    (tmp_path / "parallel.py").write_text(PARALLEL)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", str(tmp_path / "parallel.py")]
    done = subprocess.run(
        [*command, str(compress(folder)), str(folder), way, str(size)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# What can't be done is refused.


def test_zero3_is_refused(bert: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.integrations.is_deepspeed_zero3_enabled", lambda: True)
    with pytest.raises(CorecompressError, match=r"ZeRO-3.*decompress"):
        AutoModel.from_pretrained(bert[1])


def test_a_transformers_that_loads_otherwise_is_loud(bert: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the wrapped method ever renamed, the weights would be random: that must not go unnoticed."""
    monkeypatch.setattr("corecompress.hf.quantizer._is_payload", lambda file: False)
    with pytest.raises(CorecompressError, match=r"transformers .* loads models in a way"):
        AutoModel.from_pretrained(bert[1])


def test_another_quantization_on_top_is_refused(bert: tuple[Path, Path]) -> None:
    with pytest.raises(ValueError, match="CorecompressConfig"):
        AutoModel.from_pretrained(bert[1], quantization_config=transformers.BitsAndBytesConfig(load_in_8bit=True))


# corecompress.load


def test_load_takes_the_class_that_the_config_names(bert: tuple[Path, Path]) -> None:
    plain, out = bert
    assert_same(corecompress.load(out), transformers.BertForMaskedLM.from_pretrained(plain))
    half = AutoModelForMaskedLM.from_pretrained(plain, dtype=torch.bfloat16)
    assert_same(corecompress.load(str(out), "AutoModelForMaskedLM", dtype=torch.bfloat16), half)
    assert_same(corecompress.load(plain), transformers.BertForMaskedLM.from_pretrained(plain))


def test_load_falls_back_to_auto_model(tmp_path: Path) -> None:
    folder = save("BertModel", SMALL, tmp_path / "plain")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["OurOwnBert"]}))
    assert type(corecompress.load(compress(folder))) is transformers.BertModel


def test_load_says_in_one_line_what_is_wrong(bert: tuple[Path, Path], copy: Path) -> None:
    for source, auto_class, message in [
        (Path("nowhere"), None, "nowhere: no such folder"),
        ("no/such/folder", None, "no/such/folder: no such folder"),
        ("org/never-heard-of", None, "org/never-heard-of: no model can be loaded from there"),
        (bert[1], "AutoModelForEverything", "no model class 'AutoModelForEverything'"),
        (bert[1], "logging", "no model class 'logging'"),
    ]:
        with pytest.raises(CorecompressError, match=message) as told:
            corecompress.load(source, auto_class)
        assert len(str(told.value).splitlines()) == 1
    flip(copy / "config.json", 0)
    with pytest.raises(CorruptArtifact, match=r"config\.json: is damaged"):
        corecompress.load(copy)


# Registration, each case in a process of its own.


def run(code: str, *, path: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    lines = code.strip("\n").splitlines()
    indent = len(lines[0]) - len(lines[0].lstrip())
    env = {**os.environ, "HF_HUB_OFFLINE": "1", **environment}
    if path is not None:
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(path), os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, "-W", "error::UserWarning", "-c", "\n".join(line[indent:] for line in lines)]
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=path, check=False)


ORDERS = {
    "from transformers import AutoModel": "1",
    "import transformers.quantizers.auto": "1",  # torch is imported in the middle of it
    "import corecompress.hf": "0",
    "import transformers.modeling_utils, corecompress.hf": "0",
}
"""What is imported first -> whether torch calls the entry point (TORCH_DEVICE_BACKEND_AUTOLOAD)."""


def test_registration_in_every_order_of_imports(bert: tuple[Path, Path]) -> None:
    def load_after(first: str) -> subprocess.CompletedProcess[str]:
        code = f"""
        {first}
        import sys
        from transformers import AutoModel
        print(AutoModel.from_pretrained({str(bert[1])!r}).dtype)
        assert not any("_autoload" in str(finder) for finder in sys.meta_path), sys.meta_path
        """
        return run(code, TORCH_DEVICE_BACKEND_AUTOLOAD=ORDERS[first])

    with ThreadPoolExecutor(2) as pool:
        for done in pool.map(load_after, ORDERS):
            assert (done.returncode, done.stdout) == (0, "torch.float32\n"), done.stderr


def test_import_of_torch_brings_nothing_heavy() -> None:
    done = run(
        """
        import sys, torch
        print(sorted(n for n in sys.modules if n.startswith(("corecompress", "transformers", "numba", "pluggy"))))
        """
    )
    assert done.stdout == "['corecompress', 'corecompress._autoload']\n", done.stderr
    done = run(
        "import sys, corecompress, corecompress.hf; print([n for n in sys.modules if n in ('torch', 'transformers')])"
    )
    assert done.stdout == "[]\n", done.stderr


def test_switched_off_it_is_an_error_and_never_random_weights(bert: tuple[Path, Path]) -> None:
    done = run(
        f"""
        import corecompress
        from transformers import AutoModel
        try:
            AutoModel.from_pretrained({str(bert[1])!r})
        except OSError as told:
            assert "model.safetensors" in str(told)
            print(corecompress.load({str(bert[1])!r}).dtype)
        """,
        TORCH_DEVICE_BACKEND_AUTOLOAD="0",
    )
    assert done.stdout == "torch.float32\n", done.stderr


def test_registering_twice_is_once(bert: tuple[Path, Path]) -> None:
    from transformers import PreTrainedModel

    from corecompress.hf.quantizer import register

    register()
    register()
    AutoModel.from_pretrained(bert[1])
    once = PreTrainedModel._load_pretrained_model
    AutoModel.from_pretrained(bert[1])
    assert PreTrainedModel._load_pretrained_model is once
    assert AutoConfig.from_pretrained(bert[1]).quantization_config["quant_method"] == "corecompress"


def test_a_half_removed_installation_breaks_neither_torch_nor_plain_models(
    bert: tuple[Path, Path], tmp_path: Path
) -> None:
    """The metadata still name the entry point, but of the package only what it needs itself is there."""
    (tmp_path / "corecompress").mkdir()
    for name in ("__init__.py", "_autoload.py"):
        shutil.copy(Path(corecompress.__file__).parent / name, tmp_path / "corecompress")
    done = run(
        f"""
        import sys, warnings
        warnings.simplefilter("always")
        sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder)]  # would find the rest
        import torch, corecompress
        from transformers import AutoModel
        print(AutoModel.from_pretrained({str(bert[0])!r}).dtype, corecompress.__file__)
        """,
        path=tmp_path,
    )
    assert done.stdout == f"torch.float32 {tmp_path / 'corecompress' / '__init__.py'}\n", done.stderr
    assert "corecompress could not register with transformers" in done.stderr


def test_torch_without_transformers() -> None:
    done = run(
        """
        import sys
        sys.modules["transformers"] = None
        import torch, corecompress, corecompress.hf
        try:
            corecompress.load(".")
        except corecompress.CorecompressError as told:
            print(told)
        """
    )
    assert done.returncode == 0, done.stderr
    assert 'pip install "corecompress[hf]"' in done.stdout
    assert len(done.stdout.splitlines()) == 1
