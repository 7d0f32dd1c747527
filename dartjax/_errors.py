"""Errors in the user's input: one message that says what is wrong, where, and what to do."""


class DataError(ValueError):
    """An input that cannot be used. The message names the file or key, what is wrong with it
    and what to do; experiments print it and exit with code 2."""


class OfflineError(DataError):
    """The example case is not cached and cannot be downloaded."""
