"""One rank, started by any launcher that sets the environment variables of torchrun:

    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint first-machine:29500 \\
        -m tikmix_pipeline.distributed data/06_models/default/round_0.resume
"""

import sys
from pathlib import Path

from tikmix_pipeline.distributed.job import work

if __name__ == "__main__":
    work(Path(sys.argv[1]))
