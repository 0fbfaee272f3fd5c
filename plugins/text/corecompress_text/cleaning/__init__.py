"""The cleaning steps, in the order in which they run:

    markup ─► unicode ─► noise ─► duplicates ─► language ─► segment ─► tags
    ─► punctuation ─► stopwords ─► lowercase ─► bounds

Tags are given while words still have their case and punctuation; the steps after them thin out words and tags in
parallel. No step downloads anything: lists, lexica and models come inside of the packages that plugins/text needs.
"""

from corecompress_text.cleaning.document import UPOS, Document
from corecompress_text.cleaning.options import CleaningOptions
from corecompress_text.cleaning.pipeline import Cleaner, StepReport, batches

__all__ = ["UPOS", "Cleaner", "CleaningOptions", "Document", "StepReport", "batches"]
