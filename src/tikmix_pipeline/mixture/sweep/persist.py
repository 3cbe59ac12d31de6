"""A fitted surrogate on disk, as a skops file: unlike a pickle, reading one runs no code but that of trusted types."""

from pathlib import Path
from typing import Any

from tikmix_pipeline.errors import TikmixError
from tikmix_pipeline.files import replacing

SURROGATE_FILE = "surrogate.skops"

TRUSTED_TYPES = (
    "sklearn.multioutput.MultiOutputRegressor",
    "tikmix_pipeline.mixture.sweep.gaussian_process.MixtureGaussianProcess",
    "tikmix_pipeline.mixture.sweep.surrogates.BoostedTrees",
    "tikmix_pipeline.mixture.sweep.surrogates.LogRidge",
    "xgboost.core.Booster",
    "xgboost.sklearn.XGBRegressor",
)
"""What a file may hold besides the types that skops itself trusts."""


def save_surrogate(surrogate: Any, folder: Path) -> None:
    """Write a fitted surrogate into `folder`."""
    from skops.io import dump

    with replacing(folder / SURROGATE_FILE) as temporary:
        dump(surrogate, temporary)


def load_surrogate(folder: Path) -> Any:
    """Read a fitted surrogate.

    Raises:
        TikmixError: the file is not there, is damaged, or holds a type that is not trusted.
    """
    import zipfile

    from skops.io import get_untrusted_types, load

    file = folder / SURROGATE_FILE
    if not file.exists():
        raise TikmixError(f"{file} is not there. Run the `sweep` pipeline to fit a surrogate.")
    try:
        unknown = sorted({*get_untrusted_types(file=file)} - {*TRUSTED_TYPES})
        if unknown:
            raise TikmixError(f"{file} holds {', '.join(unknown)}, which no surrogate does. Delete it and fit again.")
        return load(file, trusted=list(TRUSTED_TYPES))
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise TikmixError(f"{file} is damaged ({error}). Delete it and run the `sweep` pipeline again.") from error
