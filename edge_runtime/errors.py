"""The one exception a user is meant to see."""


class GruardError(Exception):
    """A problem the user can mend: the message names what is wrong, where, and the fix.

    Commands print it as one line on stderr and exit with `exit_code`; nobody sees a traceback.
    """

    exit_code = 2
