"""`kedro run` for the installed package, as `kedro package` makes it: `python -m tikmix_pipeline` beside `conf`."""

import sys
from pathlib import Path


def main() -> None:
    """Run pipelines with the options of `kedro run`, in the folder where this is called."""
    try:
        from kedro.framework.cli.utils import find_run_command
        from kedro.framework.project import configure_project, settings
    except ImportError as error:  # the library alone is installed
        raise SystemExit(f"{error}. Pipelines need an extra: pip install 'tikmix-pipeline[pipeline]'") from None
    configure_project("tikmix_pipeline")
    folder = Path.cwd() / settings.CONF_SOURCE
    if not folder.is_dir() and not any(word.startswith("--conf-source") for word in sys.argv):
        raise SystemExit(
            f"There is no configuration at {folder}. `kedro package` packs it beside the wheel: unpack "
            "dist/conf-tikmix_pipeline.tar.gz here, or name it (--conf-source=conf-tikmix_pipeline.tar.gz)."
        )
    find_run_command("tikmix_pipeline")()


if __name__ == "__main__":
    main()
