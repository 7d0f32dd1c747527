"""Errors that are the user's to mend: one message that says what, where, and what to do."""


class DataError(ValueError):
    """An input that cannot be used. The message names the file or key, what is wrong with it
    and what to do; experiments print it and exit with code 2."""


class OfflineError(DataError):
    """The example case is neither cached nor downloadable."""
