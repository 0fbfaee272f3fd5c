"""Images with captions as batches. Hooks only; see data.py."""

from corecompress import Component, hookimpl


@hookimpl
def data_components() -> list[Component]:
    summary = "images with captions: a folder, a set of the hub, or `digits`, `fashion`, `emoji`, ready for the model"
    return [Component("captioned", "corecompress_captioned.data:Captioned", summary, api=1, example="captioned:digits")]
