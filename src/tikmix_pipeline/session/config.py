"""How environments combine: a project's own domains and tasks take the place of the default ones.

A domain or task that is set to null is left out, for those who lack what it needs: `--params corpus.domains.mail=null`.
"""

import copy
import functools
from typing import Any

from kedro.config import MissingConfigException, OmegaConfigLoader
from omegaconf import OmegaConf

from tikmix_pipeline.run import with_folders

_TAKEN_WHOLE = ("domains", "tasks")


class TikmixConfigLoader(OmegaConfigLoader):
    """Merges an environment's parameters into the base's key by key, except the sets of domains and tasks.

    Merged, a user's three domains would join the seven of the default corpus.
    """

    def __getitem__(self, key: str) -> dict[str, Any]:
        """Load one kind of configuration."""
        if key == "parameters":
            return copy.deepcopy(self._parameters)
        if key == "catalog":
            corpus = self._parameters.get("corpus") or {}
            names = str(self._parameters.get("experiment")), str(corpus.get("name", "default"))
            return with_folders(self.catalog, *names)
        found: dict[str, Any] = super().__getitem__(key)
        return found

    # a run asks for either three times, and parsing the files takes most of its start

    @functools.cached_property
    def catalog(self) -> dict[str, Any]:
        """The catalog's configuration with placeholders for the names of the folders."""
        found: dict[str, Any] = super().__getitem__("catalog")
        return found

    @functools.cached_property
    def _parameters(self) -> dict[str, Any]:
        merged: dict[str, Any] = super().__getitem__("parameters")
        own = self._of_environment().get("corpus") or {}
        given = (self.runtime_params or {}).get("corpus") or {}
        for name in _TAKEN_WHOLE:
            if name in own:
                taken = OmegaConf.merge(own[name], given.get(name) or {})
                merged["corpus"][name] = OmegaConf.to_container(taken)
            if isinstance(found := merged.get("corpus", {}).get(name), dict):
                merged["corpus"][name] = {key: value for key, value in found.items() if value is not None}
        return merged

    def _of_environment(self) -> dict[str, Any]:
        """Load the environment's parameters alone."""
        environment = self.env or self.default_run_env
        loader = OmegaConfigLoader(self.conf_source, base_env=environment, default_run_env=environment)
        try:
            own: dict[str, Any] = loader["parameters"]
        except MissingConfigException:
            return {}
        return own
