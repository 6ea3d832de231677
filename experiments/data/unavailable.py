"""The one error of data that people can do something about. Apart from `sources`, which imports JAX."""


class DataUnavailable(RuntimeError):
    """The data set is known but cannot be read here. One line, for people."""
