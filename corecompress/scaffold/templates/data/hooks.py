"""Lines of a text file as corecompress data. Hooks only; the work is in data.py."""

from corecompress import Component, hookimpl


@hookimpl
def data_components() -> list[Component]:
    summary = "lines of a text file as bytes"
    return [Component("$distribution", "$package.data:Lines", summary, api=1, example="$distribution:demo")]
