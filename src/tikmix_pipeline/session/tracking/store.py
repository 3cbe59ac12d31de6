"""The client of an MLflow store, whose failures are all of one kind.

What a store raises depends on where it stands: MLflow's own error, what HTTP clients raise, and for artifacts whatever
the client library of that place raises, which derives from nothing in common. Here all of it becomes a `StoreError`, so
that a run can go on without its store, while a mistake in what is logged still shows.
"""

from collections.abc import Callable
from typing import Any


class StoreError(Exception):
    """The store did not do what it was asked; the message is that of the first error."""


class StoreClient:
    """An `MlflowClient` that raises nothing but `StoreError`."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        def guarded(*args: Any, **kwargs: Any) -> Any:
            try:
                return method(*args, **kwargs)
            except Exception as error:
                raise StoreError(getattr(error, "message", None) or str(error) or type(error).__name__) from error

        return guarded
