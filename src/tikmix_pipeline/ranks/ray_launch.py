"""The old name of `python -m tikmix_pipeline.distributed.ray_launch`."""

from tikmix_pipeline.distributed.ray_launch import main
from tikmix_pipeline.ranks import tell

if __name__ == "__main__":
    tell("python -m tikmix_pipeline.distributed.ray_launch ... {folder}")
    main()
