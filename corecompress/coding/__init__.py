"""Entropy coding shared by every prior: integer frequency tables and interleaved rANS.

Importing it imports numba; compiled kernels are kept on disk, so only the first start on a machine pays for them.
"""

from corecompress.coding.blocks import decode_block, encode_block
from corecompress.coding.chunks import Part, join_chunks, map_chunks, split_chunks
from corecompress.coding.coder import decode, decode_bytes, encode, encode_bytes
from corecompress.coding.planes import decode_planes, encode_planes
from corecompress.coding.tables import Tables

__all__ = [
    "Part",
    "Tables",
    "decode",
    "decode_block",
    "decode_bytes",
    "decode_planes",
    "encode",
    "encode_block",
    "encode_bytes",
    "encode_planes",
    "join_chunks",
    "map_chunks",
    "split_chunks",
]
