"""Compressed folders in transformers. `import torch` registers on its own; where that is switched off
(TORCH_DEVICE_BACKEND_AUTOLOAD=0), `import corecompress.hf` does, before or after the import of transformers.
"""

from corecompress._autoload import install

install()
