"""Fixtures that the tests of a run's session share."""

from pathlib import Path

import pytest

from tikmix_pipeline.session.tracking.store import open_store


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store, which takes seconds to make."""
    folder = tmp_path_factory.mktemp("store")
    open_store(folder)
    return folder / "mlflow.db"
