"""The one exception a user is meant to see."""


class GruardError(Exception):
    """A problem the user can mend: the message names what is wrong, where, and the fix.

    Commands print it as one line on stderr and exit with `exit_code`; nobody sees a traceback.
    """

    exit_code = 2


class DamagedError(GruardError):
    """Bytes are missing, or are not those that were written; another copy may be whole."""


class RemovedError(DamagedError):
    """A slot was removed while it was being opened; the pointers name another one by now."""


class UnfitError(GruardError):
    """A model cannot be calibrated or exported; a smaller one may be."""


class BusyError(GruardError):
    """Another process holds a lock; the same may succeed later."""


class NotAllowedError(GruardError):
    """A person has to allow it first: a signature, a failed validation, a file's permissions."""
