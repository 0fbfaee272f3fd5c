"""Entropy coding shared by every prior: integer frequency tables and interleaved rANS.

Importing it imports numba; compiled kernels are kept on disk, so only the first start on a machine pays for them.
"""

import os
import tempfile
from pathlib import Path

import numba

# numba keeps compiled code beside the source, or in the user's cache folder; where neither can be written (a read-only
# container, say) it would refuse to work at all.
_places = (Path(__file__).parent, Path.home())
if not numba.config.CACHE_DIR and not any(os.access(place, os.W_OK) for place in _places):
    numba.config.CACHE_DIR = tempfile.mkdtemp(prefix="corecompress-")

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
