"""The few errors a caller can act on; each carries the exit code the command line ends with.

A message is one sentence: what was wrong, where, and what to do. Anything that is not an
`EdgeError` is a bug and keeps its traceback.
"""


class EdgeError(Exception):
    """Something the user can mend; exit code 1."""

    exit_code = 1


class InvalidInputError(EdgeError):
    """A file, option or value that the user gave can't be used; exit code 2."""

    exit_code = 2


class FormatError(InvalidInputError):
    """Bytes that should follow one of our formats do not."""


class UnsupportedVersionError(FormatError):
    """A known format in a version this side does not read."""

    def __init__(self, what: str, got: object, known: int) -> None:
        super().__init__(
            f"{what} has format {got!r}, this side reads format {known}: "
            "upgrade the side that is older"
        )


class RefusedError(EdgeError):
    """A check or a gate said no; exit code 3."""

    exit_code = 3


class CorruptBundleError(RefusedError):
    """A bundle whose bytes are not what its manifest or its assignment says."""


class UntrustedError(RefusedError):
    """A signature that is missing, wrong, or by a key that is not trusted."""


class ServerError(EdgeError):
    """The server can't be reached or refused; exit code 4."""

    exit_code = 4


class NotConvertibleError(EdgeError):
    """No candidate can be made or none fits the profile; exit code 5."""

    exit_code = 5
