"""The four hooks. A plugin implements those it has something for; each returns a list of `Component`.

A plugin's module holds hook implementations and nothing heavy: it is imported whenever plugins are listed. What
does the work is named by `Component.target` and imported on first use.
"""

import pluggy

from corecompress.components import Component

HOOK_API = 1
"""Version of the hooks and Protocols. Within one version hooks only gain arguments; a component that was built for
a newer one than the installed core has is reported, not used. A hook that is to go warns for one release
(`@hookspec(warn_on_impl=DeprecationWarning(…))`), which `corecompress plugins` shows beside the plugin."""

ENTRY_POINT_GROUP = "corecompress"

hookspec = pluggy.HookspecMarker("corecompress")
hookimpl = pluggy.HookimplMarker("corecompress")


@hookspec
def data_components() -> list[Component]:  # type: ignore[empty-body]
    """Where samples come from (`corecompress.components.Data`), named in `--data NAME:SOURCE`.

    Called once, when plugins are discovered. Example::

        from corecompress import Component, hookimpl

        @hookimpl
        def data_components():
            return [Component("lines", "acme_lines.data:Lines", "a document a line", example="lines:demo")]
    """


@hookspec
def encoder_components() -> list[Component]:  # type: ignore[empty-body]
    """Analysis and synthesis transforms (`corecompress.components.Encoder`).

    Called once, when plugins are discovered. Example::

        from corecompress import Component, hookimpl

        @hookimpl
        def encoder_components():
            return [Component("pca", "acme_pca.encoder:Pca", "principal components as latents")]
    """


@hookspec
def prior_components() -> list[Component]:  # type: ignore[empty-body]
    """Probability models of latents (`corecompress.components.Prior`).

    Called once, when plugins are discovered. Example::

        from corecompress import Component, hookimpl

        @hookimpl
        def prior_components():
            return [Component("student", "acme_student.prior:Student", "Student's t, heavy tails")]
    """


@hookspec
def compressor_components() -> list[Component]:  # type: ignore[empty-body]
    """Whole strategies, for one tensor at a time or for a whole model (`TensorCompressor`, `ModelCompressor`).

    Called once, when plugins are discovered. Example::

        from corecompress import Component, hookimpl

        @hookimpl
        def compressor_components():
            return [Component("rtn", "acme_rtn.compressor:RoundToNearest", "groups of weights on a uniform grid")]
    """


HOOKS = {
    "data": "data_components",
    "encoder": "encoder_components",
    "prior": "prior_components",
    "compressor": "compressor_components",
}
"""Kind of component -> name of the hook that lists them."""
