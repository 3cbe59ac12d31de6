"""What Kedro-Viz shows of a dataset beside its place in the graph.

Kedro-Viz tells the kind of a preview by the name of the type that `preview` returns, as kedro-datasets calls them.
"""

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NewType

from tikmix_pipeline.files import read_json

if TYPE_CHECKING:
    import pandas as pd

TablePreview = NewType("TablePreview", dict[str, Any])
"""`index`, `columns` and `data` by row."""
JSONPreview = NewType("JSONPreview", str)
"""A JSON document."""
ImagePreview = NewType("ImagePreview", str)
"""A PNG in base64."""

SHOWN_ROWS = 50
NOTHING: Any = None
"""The preview of what is not there: the type that `preview` returns must be the name alone, with no other beside it."""


def table_preview(table: "pd.DataFrame", rows: int) -> TablePreview:
    """Return the first rows of a table; what is not a number there is shown as nothing."""
    first = table.head(rows).to_json(orient="split", double_precision=6, default_handler=str)
    return TablePreview(json.loads(first))


def json_preview(file: Path) -> JSONPreview:
    """Return a JSON document as it stands on disk."""
    return JSONPreview(json.dumps(read_json(file)))


def image_preview(file: Path) -> ImagePreview:
    """Return a PNG as it stands on disk."""
    return ImagePreview(base64.b64encode(file.read_bytes()).decode())
