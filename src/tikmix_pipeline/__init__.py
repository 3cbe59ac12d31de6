"""TiKMiX Pipeline: measures which data mixture a language model should train on next."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tikmix_pipeline.library import Influence, SolvedMixture, group_influence, solve_mixture

__version__ = "0.1.0"
__all__ = ["Influence", "SolvedMixture", "group_influence", "solve_mixture"]


def __getattr__(name: str) -> Any:
    # every command imports the package, and few of them the library
    if name in __all__:
        from tikmix_pipeline import library

        return getattr(library, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
