"""How environments combine: a project's own domains and tasks take the place of the default ones.

A domain or task that is set to null is left out, for those who lack what it needs: `--params corpus.domains.mail=null`.
"""

import copy
from typing import Any

from kedro.config import MissingConfigException, OmegaConfigLoader
from omegaconf import OmegaConf

from tikmix_pipeline.run import with_folders

_TAKEN_WHOLE = ("domains", "tasks")


class TikmixConfigLoader(OmegaConfigLoader):
    """Merges an environment's parameters into the base's key by key, except the sets of domains and tasks.

    Merged, a user's three domains would join the seven of the default corpus.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._read: dict[str, dict[str, Any]] = {}
        super().__init__(*arguments, **options)

    def __getitem__(self, key: str) -> dict[str, Any]:
        """Load one kind of configuration."""
        if key == "parameters":
            return copy.deepcopy(self._parameters())
        if key == "catalog":
            parameters = self._parameters()
            corpus = parameters.get("corpus") or {}
            return with_folders(self.catalog(), str(parameters.get("experiment")), str(corpus.get("name", "default")))
        found: dict[str, Any] = super().__getitem__(key)
        return found

    def catalog(self) -> dict[str, Any]:
        """Return the catalog's configuration with placeholders for the names of the folders."""
        return self._once("catalog")

    def _once(self, key: str) -> dict[str, Any]:
        """Read a kind's files the first time alone: a run asks six times, and parsing them takes most of its start."""
        if key not in self._read:
            self._read[key] = super().__getitem__(key)
        return self._read[key]

    def _parameters(self) -> dict[str, Any]:
        if "parameters" in self._read:
            return self._read["parameters"]
        merged = self._once("parameters")
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
