"""The old name of `distributed`, for the commands in `train.launch` of one release more; imports nothing else."""

import click


def tell(command: str) -> None:
    """Say what the command is called now."""
    click.echo(f"tikmix_pipeline.ranks is now tikmix_pipeline.distributed: set train.launch to `{command}`.", err=True)
