"""Papermill runs."""


class ParameterError(ValueError):
    """A parameter."""


class NotebookError(RuntimeError):
    """Failed."""
