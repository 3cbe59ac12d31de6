"""The old name of `python -m tikmix_pipeline.distributed`."""

import sys
from pathlib import Path

from tikmix_pipeline.distributed.job import work
from tikmix_pipeline.ranks import tell

if __name__ == "__main__":
    tell("... -m tikmix_pipeline.distributed {folder}")
    work(Path(sys.argv[1]))
