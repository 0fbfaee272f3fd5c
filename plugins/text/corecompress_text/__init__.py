"""Text as calibration, training and evaluation batches. Hooks only; see data.py."""

from corecompress import Component, hookimpl


@hookimpl
def data_components() -> list[Component]:
    summary = "text files, hub sets or standard input: cleaned, tokenised, split by document, in windows or sentences"
    return [Component("text", "corecompress_text.data:Text", summary, api=1)]
