"""Every error that a user can cause: one line that names the file, tensor or option, and the mend."""


class CorecompressError(Exception):
    """Bad usage or bad input. The command line prints its one line and exits with 2."""


class CorruptData(CorecompressError, ValueError):
    """Coded bytes that no encoder wrote: raised by coders, which don't know whose bytes they read."""


class CorruptArtifact(CorecompressError):
    """A damaged compressed folder; the message names the file or the tensor."""
