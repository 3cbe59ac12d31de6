from collections.abc import Iterator

import pytest

from tikmix_pipeline.progress import no_progress_bars


@pytest.fixture(autouse=True)
def no_bars() -> Iterator[None]:
    """Hundreds of samples would draw as many bars."""
    with no_progress_bars():
        yield
