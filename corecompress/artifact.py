"""The compressed checkpoint on disk.

    OUT/
      corecompress.safetensors      one uint8 tensor `NAME_cc_data` for every tensor NAME: 4 bytes of its number in the
                                    manifest (little-endian), then the payload; and the components' states.
                                    Above a limit: corecompress-00001-of-00002.safetensors, … with an index.
      corecompress.json             the manifest: what was done, with what, and a hash of everything
      config.json                   the original's, with a quantization_config that names corecompress
      …                             every other file of the checkpoint, as it was

The suffix and the file's name are what transformers' loading needs (see hf/): never a dot before `cc_data`, never
model.safetensors, or a transformers without corecompress would load random weights with a mere warning.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corecompress.checkpoint import MANIFEST, QUANT_METHOD
from corecompress.components import Tensor, TensorCompressor, TensorInfo
from corecompress.errors import CorecompressError, CorruptArtifact, CorruptData
from corecompress.hashing import hash_bytes, hash_dense, hash_file
from corecompress.safetensors_file import Header, Stored, read_header

if TYPE_CHECKING:
    import numpy as np

FORMAT = 1
STEM = "corecompress"
PAYLOAD_INDEX = f"{STEM}.safetensors.index.json"
SUFFIX = "_cc_data"
STATE = "corecompress_state_{}"
NUMBER_BYTES = 4
TORCH = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
ORIGINAL_CARD = "README.original.md"


@dataclass(frozen=True)
class Used:
    """A component that took part: enough to build it again, and to say what to install when it is missing.

    source: its entry point, behind it " from URL" where it was installed from a repository; state_sha256: of a
    compressor that decodes, None of what took part only in compressing or inside of another component.
    """

    kind: str
    name: str
    options: dict[str, Any]
    distribution: str
    version: str
    api: int
    source: str
    state_sha256: str | None = None


@dataclass(frozen=True)
class Record:
    """One tensor. component: number in Manifest.components; shard: number in Manifest.source["shards"];
    bytes: of the payload; payload_sha256, xxh3_128: hashes of the payload and of the decoded bytes; same_as: the
    earlier tensor whose payload this one shares (a tied tensor, stored once)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    component: int
    shard: int
    bytes: int
    payload_sha256: str
    xxh3_128: str
    same_as: str | None = None

    @property
    def info(self) -> TensorInfo:
        return TensorInfo(self.name, self.dtype, self.shape)


@dataclass(frozen=True)
class FileRecord:
    """A file that goes along, or a payload file (whose hash is that of its header: the tensors have their own)."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Everything that corecompress.json says. source: name, revision, shards (file, metadata, bytes, sha256)."""

    format: int
    corecompress: str
    source: dict[str, Any]
    recipe: str
    seed: int
    data: str | None
    components: tuple[Used, ...]
    tensors: tuple[Record, ...]
    payloads: tuple[FileRecord, ...]
    files: tuple[FileRecord, ...]
    dropped: tuple[str, ...] = ()

    def to_text(self) -> str:
        """JSON whose first member is the SHA-256 of all that follows it; a line a tensor."""
        document = dataclasses.asdict(self)
        lines = []
        for key, value in document.items():
            if isinstance(value, list | tuple) and value and isinstance(value[0], dict):
                rows = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in value)
                lines.append(f" {json.dumps(key)}: [\n{rows}\n ]")
            else:
                lines.append(f" {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}")
        body = ",\n".join(lines) + "\n}\n"
        return '{\n "sha256": "' + hash_bytes(body.encode()) + '",\n' + body

    @staticmethod
    def from_text(text: str, path: Path) -> Manifest:
        """Raises CorruptArtifact for a damaged manifest, CorecompressError for one of a newer format."""
        head, _, body = text.partition(",\n")
        try:
            document = json.loads(text)
            if document.get("format", 0) > FORMAT:
                raise CorecompressError(
                    f"{path}: has format {document['format']}, this corecompress reads up to {FORMAT}; "
                    "pip install --upgrade corecompress"
                )
            if head != '{\n "sha256": "' + hash_bytes(body.encode()) + '"':
                raise ValueError("its own hash does not match")
            del document["sha256"]
            document["components"] = tuple(Used(**used) for used in document["components"])
            document["tensors"] = tuple(
                Record(**{**record, "shape": tuple(record["shape"])}) for record in document["tensors"]
            )
            for key in ("payloads", "files"):
                document[key] = tuple(FileRecord(**record) for record in document[key])
            return Manifest(**{**document, "dropped": tuple(document["dropped"])})
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            raise CorruptArtifact(f"{path}: is damaged ({problem}); fetch it again") from None


def is_compressed(folder: Path) -> bool:
    """Whether the folder claims to be a compressed checkpoint."""
    return (folder / MANIFEST).exists()


class Artifact:
    """A compressed folder, opened: manifest and headers are read and checked, payloads when they are asked for."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        path = self.folder / MANIFEST
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise CorecompressError(f"{self.folder}: no {MANIFEST} in it, so it is no compressed checkpoint") from None
        except UnicodeDecodeError as problem:
            raise CorruptArtifact(f"{path}: is damaged ({problem}); fetch it again") from None
        self.manifest = Manifest.from_text(text, path)
        self.records = {record.name: record for record in self.manifest.tensors}

    @cached_property
    def headers(self) -> tuple[Header, ...]:
        """Headers of the payload files, each compared with its recorded hash."""
        headers = []
        for payload in self.manifest.payloads:
            path = self.folder / payload.name
            if not path.is_file():
                raise CorruptArtifact(f"{path}: is missing; fetch it again")
            try:
                header = read_header(path)
            except CorecompressError as problem:
                raise CorruptArtifact(str(problem)) from None
            if path.stat().st_size != payload.bytes or header_hash(path, header.data_start) != payload.sha256:
                raise CorruptArtifact(f"{path}: its header is damaged; fetch it again")
            headers.append(header)
        return tuple(headers)

    @cached_property
    def stored(self) -> dict[str, Stored]:
        """Where each payload and state stands, by its name in the payload files."""
        return {stored.info.name: stored for header in self.headers for stored in header.tensors}

    def is_exact(self) -> bool:
        """Whether every tensor is the source's bit for bit, as far as the components promise it."""
        pairs = zip(self.manifest.components, self.decoders, strict=True)
        return all(decoder is not None and decoder.exact for used, decoder in pairs if used.kind == "compressor")

    def load_decoders(self) -> None:
        """Read headers and states and build the components now, not in a worker thread."""
        self.stored, self.decoders  # noqa: B018  (cached when first asked for)

    @cached_property
    def decoders(self) -> tuple[TensorCompressor | None, ...]:
        """The components of the manifest, built and restored; None for those that took part only in compressing.

        Raises CorecompressError that says what to install where one is missing.
        """
        return tuple(self._decoder(number, used) for number, used in enumerate(self.manifest.components))

    def _decoder(self, number: int, used: Used) -> TensorCompressor | None:
        from corecompress.plugins import registry
        from corecompress.provenance import trouble_with
        from corecompress.recipe import Spec, build

        if used.state_sha256 is None:
            return None
        if trouble := trouble_with(used):
            raise self._lacks(used, trouble)
        try:
            component: TensorCompressor = build(registry(), "compressor", Spec(used.name, used.options))
        except CorecompressError as problem:
            raise self._lacks(used, str(problem)) from None
        state = self._bytes(STATE.format(number)) if STATE.format(number) in self.stored else b""
        if hash_bytes(state) != used.state_sha256:
            raise CorruptArtifact(f"{self.folder}: the state of compressor '{used.name}' is damaged; fetch it again")
        try:
            component.restore(state)
        except CorecompressError as problem:
            for inner in self.manifest.components:  # an encoder, say, that it needs for decoding
                if inner.kind != "compressor" and (trouble := trouble_with(inner)):
                    raise self._lacks(inner, trouble) from None
            raise CorecompressError(f"{self.folder}: compressor '{used.name}' can't be restored ({problem})") from None
        return component

    def _lacks(self, used: Used, why: str) -> CorecompressError:
        from corecompress.provenance import pip_line

        who = f"{used.kind} '{used.name}' of {used.distribution} {used.version}"
        return CorecompressError(f"{self.folder}: needs {who}; mend: {pip_line(used)} ({why})")

    def _bytes(self, name: str) -> bytes:
        return self.stored[name].read().data.tobytes()

    def payload(self, name: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """A tensor's stored bytes, number and payload, as they stand in the file: uint8 [4 + bytes]."""
        try:
            return self.stored[name + SUFFIX].read().data
        except KeyError:
            raise self._lost(name) from None

    def mapped(self, name: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The same without a copy: pages of the file, which count as memory of this process while it is mapped."""
        try:
            place = self.stored[name + SUFFIX]
        except KeyError:
            raise self._lost(name) from None
        return self._maps[place.path][place.start : place.start + place.info.nbytes]

    @cached_property
    def _maps(self) -> dict[Path, np.ndarray[Any, np.dtype[np.uint8]]]:
        import numpy as np

        return {header.path: np.memmap(header.path, np.uint8, "r") for header in self.headers}

    def _lost(self, name: str) -> CorruptArtifact:
        return CorruptArtifact(f"{self.folder}: the payload of tensor '{name}' is missing; fetch it again")

    def read(self, name: str, threads: int = 1) -> Tensor:
        """Decode one tensor by name. Raises CorruptArtifact that names it when its bytes are damaged."""
        return self.decode(self.payload(name), name, threads)

    def decode(self, stored: np.ndarray[Any, np.dtype[np.uint8]], name: str, threads: int = 1) -> Tensor:
        """Decode what `payload` gave, and compare the result with its recorded hash.

        The number in front of them must be that of `name`. The payload's own hash is not asked: damage shows in the
        result (`check_payload` is for verifying).
        """
        damaged = CorruptArtifact(f"{self.folder}: tensor '{name}' is damaged; fetch {STEM}*.safetensors again")
        number = int.from_bytes(stored[:NUMBER_BYTES].tobytes(), "little")
        if len(stored) < NUMBER_BYTES or number >= len(self.manifest.tensors):
            raise damaged
        record = self.manifest.tensors[number]
        if record.name != name:
            raise damaged
        if record.same_as is not None:
            original = self.read(record.same_as, threads)
            return Tensor(record.info, original.data)
        payload = stored[NUMBER_BYTES:]
        if len(payload) != record.bytes:
            raise damaged
        decoder = self.decoders[record.component]
        if decoder is None:
            raise damaged
        try:
            dense = decoder.decode(memoryview(payload.data), record.info, threads)
        except CorruptData:
            raise damaged from None
        except Exception as problem:  # a decoder that stumbled: over damaged bytes, or by a fault of its own
            if hash_bytes(payload) != record.payload_sha256:
                raise damaged from None
            used = self.manifest.components[record.component]
            raise CorecompressError(
                f"{self.folder}: {used.distribution} {used.version} can't decode tensor '{name}' "
                f"({type(problem).__name__}: {problem}); tell its author"
            ) from problem
        if dense.nbytes != record.info.nbytes or hash_dense(dense) != record.xxh3_128:
            raise CorruptArtifact(f"{self.folder}: tensor '{record.name}' does not decode to what was recorded")
        return Tensor(record.info, dense)

    def check_payload(self, name: str) -> None:
        """Compare a tensor's stored bytes with the manifest. Raises CorruptArtifact that names it."""
        stored = self.payload(name)
        number = int.from_bytes(stored[:NUMBER_BYTES].tobytes(), "little")
        records = self.manifest.tensors
        if (
            number >= len(records)
            or records[number].name != name
            or hash_bytes(stored[NUMBER_BYTES:]) != records[number].payload_sha256
        ):
            raise CorruptArtifact(f"{self.folder}: tensor '{name}' is damaged; fetch {STEM}*.safetensors again")

    def damaged_files(self, may_be_absent: bool = False) -> list[str]:
        """Names of the files beside the payloads that differ from the manifest."""
        names = []
        for record in self.manifest.files:
            path = self.folder / record.name
            if not path.is_file():
                if not may_be_absent:
                    names.append(record.name)
            elif path.stat().st_size != record.bytes or hash_file(path) != record.sha256:
                names.append(record.name)
        return names

    def original_config(self) -> dict[str, Any]:
        """config.json as it was before compression."""
        config = json.loads((self.folder / "config.json").read_bytes())
        config.pop("quantization_config", None)
        return dict(config)


def header_hash(path: Path, data_start: int) -> str:
    """SHA-256 in hex of a safetensors file's first bytes, up to its data."""
    with open(path, "rb") as file:
        return hash_bytes(file.read(data_start))


def compressed_config(
    config: dict[str, Any], first_shard: Iterable[TensorInfo], index_metadata: dict[str, Any], payload_files: int
) -> dict[str, Any]:
    """The config with what makes transformers hand the folder to corecompress.

    weights: what names the payload files; dtype: what transformers would find out from the plain weights where no
    config says it, the index's or that of the first file's first float tensor by name.
    """
    floats = [info.dtype for info in sorted(first_shard, key=lambda info: info.name) if info.dtype in TORCH]
    dtype = index_metadata.get("dtype") or (TORCH[floats[0]] if floats else None)
    weights = f"{STEM}.safetensors" if payload_files == 1 else PAYLOAD_INDEX
    ours = {"quant_method": QUANT_METHOD, "format": FORMAT, "weights": weights, "dtype": dtype}
    return {**config, "quantization_config": ours}
