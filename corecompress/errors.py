"""Every error that a user can cause: one line that names the file, tensor or option, and the mend."""


class CorecompressError(Exception):
    """Bad usage or bad input. The command line prints its one line and exits with 2."""


class OutOfReach(CorecompressError):
    """A component can't make the bits a weight that its option `bits` asks for; `bits` is the nearest that it can."""

    def __init__(self, message: str, bits: float):
        super().__init__(message)
        self.bits = bits


class EmptySplit(CorecompressError):
    """A split of the data has no sample; who asked for it may know how much is needed."""


class UnfitData(CorecompressError):
    """The data can't be given to this model, as text to a model of images; who can do without goes on without."""


class CorruptData(CorecompressError, ValueError):
    """Coded bytes that no encoder wrote: raised by coders, which don't know whose bytes they read."""


class CorruptArtifact(CorecompressError):
    """A damaged compressed folder; the message names the file or the tensor."""
