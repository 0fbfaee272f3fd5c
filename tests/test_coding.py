"""corecompress.coding: exact round trips, lengths close to the ideal, and no damage that goes unnoticed or crashes."""

import contextlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corecompress import coding
from corecompress.coding import Tables, decode, decode_bytes
from corecompress.errors import CorruptData

INT32 = np.iinfo(np.int32)
DTYPES = [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.int64]
seeds = st.integers(0, 2**32 - 1)
examples = settings(max_examples=120, deadline=None)


def encode(*given, **options) -> bytes:
    return coding.encode(*given, **options).tobytes()


def encode_bytes(*given, **options) -> bytes:
    return coding.encode_bytes(*given, **options).tobytes()


def gaussian(n: int, seed: int = 0, sigma: float = 2.0) -> np.ndarray:
    return np.round(np.random.default_rng(seed).normal(0, sigma, n)).astype(np.int32)


def table_of(symbols: np.ndarray) -> Tables:
    low = int(symbols.min())
    return Tables.from_counts([np.bincount(symbols.astype(np.int64) - low)], [low])


@st.composite
def models(draw: st.DrawFn) -> tuple[Tables, np.random.Generator]:
    """Tables with gaps, of any number of rows and any length, and the generator they came from."""
    rng = np.random.default_rng(draw(seeds))
    counts = []
    for _ in range(draw(st.integers(1, 20))):
        row = rng.geometric(0.05, draw(st.integers(0, 300))) ** 2
        counts.append(np.where(rng.random(row.size) < draw(st.sampled_from([0.0, 0.3, 0.95])), 0, row))
    return Tables.from_counts(counts, rng.integers(-500, 500, len(counts))), rng


@examples
@given(models(), st.integers(0, 3000), st.sampled_from(DTYPES), st.integers(1, 4000), st.booleans())
def test_round_trip_is_exact_and_close_to_the_ideal_length(model, n, dtype, chunk, single):
    tables, rng = model
    rows = len(tables.length)
    index = None if single and rows == 1 else rng.integers(0, rows, n).astype(rng.choice([np.uint8, np.uint16]))
    limits = np.iinfo(np.promote_types(dtype, np.int8)) if dtype != np.int64 else INT32
    symbols = np.clip(np.round(rng.normal(0, 150, n)), limits.min, limits.max).astype(dtype)
    data = encode(symbols, tables, index, chunk=chunk)
    assert np.array_equal(decode(data, n, tables, index, dtype=dtype), symbols)
    assert encode(symbols, tables, index, chunk=chunk, threads=3) == data
    assert np.array_equal(decode(data, n, tables, index, dtype=dtype, threads=3), symbols)
    ideal = tables.bits(symbols, index)
    assert abs(8 * len(data) - ideal) < 0.005 * ideal + 8 * 64 * max(1, -(-n // chunk))


@examples
@given(st.lists(st.integers(INT32.min, INT32.max) | st.integers(-3, 3), max_size=60), models())
def test_any_int32_round_trips(values, model):
    symbols = np.array(values, np.int32)
    assert np.array_equal(decode(encode(symbols, model[0]), symbols.size, model[0]), symbols)


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 1023, 1024, 1025])
@pytest.mark.parametrize("offset", [INT32.min, -1, 0, INT32.max - 2])
def test_corner_lengths_and_extreme_offsets(n, offset):
    tables = Tables.from_counts([[5, 0, 9]], [offset])
    for slots in (np.zeros(n), np.full(n, 2), np.arange(n) % 3):
        symbols = (slots.astype(np.int64) + offset).astype(np.int32)
        assert np.array_equal(decode(encode(symbols, tables), n, tables), symbols)


def test_symbols_that_were_never_counted_are_escaped():
    tables = Tables.from_counts([[7, 0, 9], []], [10, 0])
    symbols, index = np.array([10, 11, 12, 9, 13, 0, -1], np.int32), np.array([0, 0, 0, 0, 0, 1, 1], np.uint8)
    assert decode(encode(symbols, tables, index), 7, tables, index).tolist() == symbols.tolist()


@pytest.mark.parametrize("give", [bytes, bytearray, memoryview, lambda data: np.frombuffer(data, np.uint8)])
def test_any_buffer_is_read_and_inputs_may_be_read_only_or_strided(give):
    symbols = gaussian(3000)
    tables = table_of(symbols)
    symbols.flags.writeable = False
    data = encode(symbols[::3], tables)
    assert data == encode(symbols[::3].copy(), tables)
    assert np.array_equal(decode(give(data), 1000, tables), symbols[::3])
    assert decode(give(encode(symbols[:0], tables)), 0, tables).size == 0


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.0, 5.0])
def test_within_half_a_percent_of_the_entropy(sigma):
    symbols = gaussian(1 << 19, sigma=sigma)
    share = np.unique(symbols, return_counts=True)[1] / symbols.size
    entropy = -(share * np.log2(share)).sum() * symbols.size
    assert 8 * len(encode(symbols, table_of(symbols))) < 1.005 * entropy


def test_rare_symbols_of_a_heavy_tail_cost_little():
    symbols = np.clip(np.round(1.5 * np.random.default_rng(0).standard_t(2, 1 << 19)), -3000, 3000).astype(np.int32)
    share = np.unique(symbols, return_counts=True)[1] / symbols.size
    entropy = -(share * np.log2(share)).sum() * symbols.size
    assert 8 * len(encode(symbols, table_of(symbols))) < 1.01 * entropy


def test_bytes_are_pinned():
    """The same bytes on every machine and in every later version: who changes them changes the format."""
    symbols = np.array([0, 1, 0, 2, -1, 0, 300, 1, 0], np.int32)
    tables = Tables.from_counts([[1, 4, 2, 1]], [-1])
    assert tables.to_bytes().hex() == "0101048004ff0f800880040108e6"
    stream = "0901230260040400ff09040020020200ff0d08000000080020020200ff0f0010ff090400d604"
    assert encode(symbols, tables).hex() == stream


@examples
@given(models())
def test_tables_come_back_and_every_damage_is_noticed(model):
    tables, rng = model
    data = tables.to_bytes()
    again = Tables.from_bytes(data)
    for name in ("cdf", "offset", "length"):
        assert np.array_equal(getattr(again, name), getattr(tables, name))
    assert (np.diff(tables.cdf.astype(int)) >= 0).all()
    assert (tables.cdf[:, -1] == 4096).all()
    for bit in rng.integers(0, 8 * len(data), 30):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptData):
            Tables.from_bytes(damaged)
    for end in rng.integers(0, len(data), 30):
        with pytest.raises(CorruptData):
            Tables.from_bytes(data[:end])


@examples
@given(st.binary(max_size=200))
def test_no_table_is_made_of_random_bytes(data):
    with pytest.raises(CorruptData):
        Tables.from_bytes(data)


def test_a_table_of_twenty_exponents_is_small():
    counts = (1000 * 0.6 ** np.arange(20)).astype(int) + 1
    assert len(Tables.from_counts([counts], [110]).to_bytes()) <= 40


@pytest.mark.parametrize(
    ("cdf", "offset", "length"),
    [
        ([[0, 5000, 4096]], [0], [2]),  # not rising
        ([[0, 100, 4095]], [0], [2]),  # another sum
        ([[1, 100, 4096]], [0], [2]),  # not from 0
        ([[0, 4096, 4096]], [0], [2]),  # no escape
        ([[0, 100, 4096]], [0], [3]),  # longer than it is
        ([[0, 100, 4096]], [0], [0]),
        ([[0, 100, 4096]], [0, 1], [2]),
        ([[0, 100, 200, 4096]], [INT32.max], [3]),  # symbols that are no int32
        (np.zeros((0, 3)), [], []),
    ],
)
def test_impossible_tables_are_refused(cdf, offset, length):
    with pytest.raises(ValueError, match=r"row|tables"):
        Tables(np.array(cdf, np.int64), np.array(offset, np.int64), np.array(length, np.int64))


def test_bad_arguments_are_refused():
    tables = Tables.from_counts([[1, 2]], [0])
    for symbols in (np.array([2**40]), np.array([0.5]), np.array([2**31], np.uint32)):
        with pytest.raises(ValueError, match="symbols"):
            encode(symbols, tables)
    for index in ([1], [-1], [0, 0], [0.0]):
        with pytest.raises(ValueError, match="index"):
            encode(np.array([0]), tables, np.array(index))
        with pytest.raises(CorruptData, match="index"):
            decode(encode(np.array([0]), tables), 1, tables, np.array(index))
    with pytest.raises(ValueError, match="chunk"):
        encode(np.array([0]), tables, chunk=0)
    with pytest.raises(ValueError, match="counts"):
        Tables.from_counts([[1, -1]], [0])
    with pytest.raises(ValueError, match="precision"):
        Tables.from_counts([[1]], [0], precision=14)
    with pytest.raises(ValueError, match="plane"):
        encode_bytes(np.zeros(3, np.int32))
    with pytest.raises(ValueError, match="out"):
        decode_bytes(encode_bytes(np.zeros(3, np.uint8)), 3, out=np.zeros(4, np.uint8))


@pytest.mark.parametrize("value", [-1, 256])
def test_a_symbol_that_its_dtype_cannot_hold_is_an_error(value):
    for tables in (Tables.from_counts([[1, 1]], [0]), Tables.from_counts([[1, 1]], [value])):
        with pytest.raises(CorruptData):
            decode(encode(np.array([value]), tables), 1, tables, dtype=np.uint8)


def streams() -> list[tuple[str, bytes, np.ndarray, object]]:
    """Small streams of every sort: (name, data, what it decodes to, decoder)."""
    plain, wide = gaussian(40), gaussian(60, 1, 9.0)
    one, several = table_of(plain[:20]), Tables.from_counts([[1, 5, 2], [3, 0, 1, 8, 2]], [-1, -9])
    index = (np.arange(60) % 2).astype(np.uint8)
    found = [
        ("plain", encode(plain, one), plain, lambda data: decode(data, 40, one)),
        ("chunks", encode(plain, one, chunk=16), plain, lambda data: decode(data, 40, one)),
        ("several", encode(wide, several, index), wide, lambda data: decode(data, 60, several, index)),
    ]
    rng = np.random.default_rng(3)
    exponents = (rng.geometric(0.4, 500) % 12 + 110).astype(np.uint8)
    odd = np.where(rng.random(501) < 0.02, 200, np.append(exponents, 111)).astype(np.uint8)
    for name, plane in {
        "constant": np.full(50, 7, np.uint8),
        "stored": rng.integers(0, 256, 50, np.uint8),
        "exponents": exponents,
        "odd": odd,
        "wide": np.clip(rng.normal(128, 20, 600), 0, 255).astype(np.uint8),
    }.items():
        data = encode_bytes(plane, chunk=300)
        found.append((name, data, plane, lambda data, n=plane.size: decode_bytes(data, n)))
    return found


def one_chunk(data: bytes, side: bytes, words: bytes) -> bytes:
    """The stream of a few symbols with other escape values and more words than its encoder wrote."""
    head, body = data[:2], data[3:]
    middle = body[1 : len(body) - body[0]]
    body = bytes([len(side)]) + middle + words + side
    return head + bytes([len(body)]) + body


@pytest.mark.parametrize(
    ("side", "words", "valid"),
    [
        (b"\x80\x01", b"", True),  # what the encoder wrote: 64 beyond the middle, doubled
        (b"\x80\x01", b"\0\0", False),  # a word too many
        (b"\x80\x01\x04", b"", False),  # an escape value too many
        (b"", b"", False),
        (b"\x80", b"", False),  # cut off
        (b"\x80\x81\x00", b"", False),  # padded
        (b"\x80\x80\x80\x80\x80\x01", b"", False),  # too long
        (b"\xff\xff\xff\xff\x7f", b"", False),  # no int32
        (b"\x00", b"", False),  # a symbol that has a slot
        (b"\x03", b"", True),  # the symbol below the row
    ],
)
@pytest.mark.parametrize("index", [None, np.zeros(3, np.uint8)], ids=["one table", "index"])
def test_only_what_an_encoder_writes_is_read(side, words, valid, index):
    tables = Tables.from_counts([[3, 5, 3]], [0])
    assert tables.length[0] == 4
    written = encode(np.array([0, 65, 1]), tables, index)
    data = one_chunk(written, side, words)
    assert (data == written) == (side == b"\x80\x01" and not words)
    if valid:
        assert decode(data, 3, tables, index)[1] not in (0, 1, 2)
    else:
        with pytest.raises(CorruptData):
            decode(data, 3, tables, index)


@pytest.mark.parametrize(("name", "data", "expected", "read"), streams(), ids=[s[0] for s in streams()])
def test_truncation_and_every_bit_flip(name, data, expected, read):
    assert np.array_equal(read(data), expected)
    for end in range(len(data)):
        with pytest.raises(CorruptData):
            read(data[:end])
    with pytest.raises(CorruptData):
        read(data + b"\0")
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with contextlib.suppress(CorruptData):
            assert not np.array_equal(read(damaged), expected), f"bit {bit} of {name} means nothing"


@pytest.mark.parametrize(("name", "data", "expected", "read"), streams(), ids=[s[0] for s in streams()])
def test_garbage_never_crashes(name, data, expected, read):
    rng = np.random.default_rng(5)
    for _ in range(1500):
        damaged = np.frombuffer(data, np.uint8).copy()
        first = rng.integers(0, damaged.size)
        size = rng.integers(1, 40)
        damaged[first : first + size] = rng.integers(0, 256, damaged[first : first + size].size)
        with contextlib.suppress(CorruptData):
            assert read(damaged[: rng.integers(1, 2 * damaged.size)]).shape == expected.shape


@pytest.mark.parametrize("n", [41, 1 << 20, 1 << 40, 1 << 62])
def test_another_n_is_refused_before_it_is_allocated(n):
    tables = Tables.from_counts([[1, 2, 1]], [-1])
    with pytest.raises(CorruptData):
        decode(encode(gaussian(40), tables), n, tables)
    with pytest.raises(CorruptData):
        decode_bytes(encode_bytes(gaussian(40).astype(np.uint8)), n)


def test_a_forged_chunk_size_does_not_make_room_for_a_forged_n():
    tables = Tables.from_counts([[1, 2, 1]], [-1])
    forged = b"\x80\x80\x80\x08" + encode(gaussian(40), tables)[1:]  # 2^24 symbols in its one chunk
    with pytest.raises(CorruptData, match="cannot hold"):
        decode(forged, 1 << 24, tables)


@examples
@given(seeds, st.integers(0, 5000), st.integers(1, 6000), st.sampled_from([1, 2, 5, 40, 256]), st.integers(1, 4))
def test_byte_planes_round_trip_strided_or_not(seed, n, chunk, values, stride):
    rng = np.random.default_rng(seed)
    alphabet = rng.permutation(256)[:values]
    plane = alphabet[np.minimum(rng.geometric(0.3, n * stride) - 1, values - 1)].astype(np.uint8)[::stride]
    data = encode_bytes(plane, chunk=chunk)
    assert data == encode_bytes(plane.copy(), chunk=chunk, threads=2)
    assert np.array_equal(decode_bytes(data, n), plane)
    out = np.full((n, stride), 77, np.uint8)
    assert decode_bytes(data, n, out=out[:, 0], threads=2) is not None
    assert np.array_equal(out[:, 0], plane)
    assert (out[:, 1:] == 77).all()


def test_importing_corecompress_does_not_import_numba():
    code = "import sys, corecompress; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
