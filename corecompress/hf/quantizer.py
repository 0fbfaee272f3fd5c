"""What transformers knows of us: a quantization method, `corecompress`, that is undone while the model is loaded.

transformers finds the quantizer by config.json's quantization_config. The quantizer names the payload file, and hands
transformers the tensors under their original names, each decoded when it is asked for; everything after that (renaming,
merging of experts, dtypes, devices, tied weights) is the load of a plain checkpoint.

That last step goes through PreTrainedModel._load_pretrained_model, which takes a state dict in place of files but gives
quantizers no way to provide one. It is wrapped when the first compressed folder is loaded, and passes every other load
on untouched. A weight converter, transformers' own road, sees stored names only (`x.weight_cc_data`): the renamings
that models bring don't match those, and what quantizers are asked differs from one minor release to the next.
"""

from __future__ import annotations

import functools
import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.quantizers import auto
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from corecompress.artifact import PAYLOAD_INDEX, STEM, is_compressed
from corecompress.checkpoint import MANIFEST, QUANT_METHOD
from corecompress.errors import CorecompressError, CorruptArtifact
from corecompress.hf.tensors import DTYPES, OpenedFolder

PAYLOAD = f"{STEM}.safetensors"


class CorecompressConfig(QuantizationConfigMixin):  # type: ignore[misc]
    """config.json's quantization_config. weights: the payload file, or the index of several; dtype: what
    dtype="auto" means for this checkpoint where its config.json names none (the first float tensor's)."""

    def __init__(self, weights: str = PAYLOAD, dtype: str | None = None, **_: Any):
        if weights not in (PAYLOAD, PAYLOAD_INDEX) or dtype not in (None, *DTYPES.values()):
            raise CorruptArtifact(
                f"config.json: names weights '{weights}' of dtype '{dtype}', which can't be; fetch it again"
            )
        self.quant_method = QUANT_METHOD
        self.dequantize = True  # the model comes out dense: transformers forgets the quantization after loading
        self.weights, self.dtype = weights, dtype


class CorecompressQuantizer(HfQuantizer):  # type: ignore[misc]
    """One load of one compressed folder. Raises CorruptArtifact, which names the file or tensor, for a damaged one."""

    def __init__(self, quantization_config: CorecompressConfig, **kwargs: Any):
        super().__init__(quantization_config, **kwargs)
        self.is_loaded = False
        self._opened: OpenedFolder | None = None
        _wrap_loading()

    def validate_environment(self, *args: Any, **kwargs: Any) -> None:
        from transformers.integrations import is_deepspeed_zero3_enabled

        if is_deepspeed_zero3_enabled():
            raise CorecompressError("DeepSpeed ZeRO-3 can't load a compressed folder; corecompress decompress it first")

    def update_attn_implementation(self, config: Any) -> Any:
        """The first call that sees the config, before any file is looked for: name the payload file in it.

        It isn't written into config.json, or a transformers without corecompress would read payloads as weights.
        """
        config.transformers_weights = self.quantization_config.weights
        if getattr(config, "dtype", None) is None and self.quantization_config.dtype is not None:
            config.dtype = getattr(torch, self.quantization_config.dtype)
        source = getattr(config, "name_or_path", None)
        if source and is_compressed(Path(source)):  # a local folder: say what is damaged before it trips something up
            self._open(Path(source))
        return config

    def load(self, original: Any, call: inspect.BoundArguments) -> Any:
        """Call transformers' loading with the decoded tensors in place of the payload files."""
        load_config = call.arguments["load_config"]
        files = [Path(file) for file in call.arguments["checkpoint_files"]]
        folder = next(file.parent for file in files if _is_payload(file))
        if not is_compressed(folder) and not Path(load_config.pretrained_model_name_or_path).is_dir():
            _fetch_manifest(load_config)
        opened = self._open(folder)
        opened.decode_ahead()
        call.arguments["state_dict"] = opened.tensors | _plain_tensors(file for file in files if not _is_payload(file))
        call.arguments["checkpoint_files"] = None
        call.arguments["load_config"] = replace(load_config, hf_quantizer=None)  # or dtypes would be handled otherwise
        loaded = original(*call.args, **call.kwargs)
        opened.check_unread()
        self.is_loaded = True
        return loaded

    def _open(self, folder: Path) -> OpenedFolder:
        if self._opened is None or self._opened.artifact.folder != folder:
            self._opened = OpenedFolder(folder)
        return self._opened

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        if not self.is_loaded:  # nothing was decoded, so these weights are random
            raise CorecompressError(
                f"transformers {transformers.__version__} loads models in a way that this corecompress doesn't know; "
                "pip install --upgrade corecompress, or `corecompress decompress` the folder"
            )
        self._opened = None
        vars(model.config).pop("transformers_weights", None)
        return model

    def is_serializable(self, *args: Any, **kwargs: Any) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return True


def register() -> None:
    """Make `corecompress` a quantization method of transformers. Importing this module does; again is no harm."""
    auto.AUTO_QUANTIZATION_CONFIG_MAPPING[QUANT_METHOD] = CorecompressConfig
    auto.AUTO_QUANTIZER_MAPPING[QUANT_METHOD] = CorecompressQuantizer


def _wrap_loading() -> None:
    """Wrap PreTrainedModel._load_pretrained_model, once."""
    from transformers.modeling_utils import PreTrainedModel

    original = PreTrainedModel._load_pretrained_model
    if hasattr(original, "corecompress_original"):
        return
    signature = inspect.signature(original)

    @functools.wraps(original)
    def load(*args: Any, **kwargs: Any) -> Any:
        call = signature.bind_partial(*args, **kwargs)
        quantizer = getattr(call.arguments.get("load_config"), "hf_quantizer", None)
        files = call.arguments.get("checkpoint_files") or ()
        if isinstance(quantizer, CorecompressQuantizer) and any(_is_payload(Path(file)) for file in files):
            return quantizer.load(original, call)
        return original(*args, **kwargs)  # a plain folder, or an adapter on top of a compressed one

    load.corecompress_original = original  # type: ignore[attr-defined]
    PreTrainedModel._load_pretrained_model = staticmethod(load)


def _is_payload(file: Path) -> bool:
    return file.name.startswith(STEM) and file.suffix == ".safetensors"


def _plain_tensors(files: Any) -> dict[str, Any]:
    """Tensors of the further weight files that a few models' classes name (PreTrainedConfig.extra_files)."""
    from safetensors import safe_open

    opened: list[Any] = [safe_open(file, framework="pt") for file in files]
    return {name: file.get_slice(name) for file in opened for name in file.keys()}  # noqa: SIM118


def _fetch_manifest(load_config: Any) -> None:
    """A hub's snapshot holds what transformers asked for: add the manifest of the same commit to it."""
    from transformers.utils import cached_file

    name = load_config.pretrained_model_name_or_path
    try:
        cached_file(name, MANIFEST, **load_config.download_kwargs)
    except OSError as problem:
        reason = " ".join(str(problem).split())
        raise CorecompressError(f"{name}: its {MANIFEST} can't be had ({reason}); go online once") from problem


register()
