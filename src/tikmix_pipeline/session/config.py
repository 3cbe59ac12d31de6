"""How environments combine: a project's own domains and tasks take the place of the default ones.

A domain or task that is set to null is left out, for those who lack what it needs: `--params corpus.domains.mail=null`.
"""

import copy
import functools
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kedro.config import OmegaConfigLoader
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tikmix_pipeline.errors import TikmixError, nearest_name
from tikmix_pipeline.parameters.check import merged_parameters
from tikmix_pipeline.run import with_folders
from tikmix_pipeline.session.config_file import read_config
from tikmix_pipeline.session.interpolations import UnboundedError, require_bounded

_TAKEN_WHOLE = ("domains", "tasks")
_INTERPOLATIONS = (
    "There may stand ${key} for a value of the same folder, ${globals:key} for one of globals.yml, or "
    "${runtime_params:key} for one of --params. The environment's variables can be read in credentials.yml alone."
)


class TikmixConfigLoader(OmegaConfigLoader):
    """Merges an environment's parameters into the base's key by key, except the sets of domains and tasks.

    Merged, a user's three domains would join the seven of the default corpus. What is wrong with a file ends in a
    TikmixError that names it.
    """

    def __getitem__(self, key: str) -> dict[str, Any]:
        """Load one kind of configuration."""
        self._require_environment()
        if key == "parameters":
            return copy.deepcopy(self._parameters)
        if key == "catalog":
            corpus = self._parameters.get("corpus")
            name = corpus.get("name", "default") if isinstance(corpus, dict) else "default"
            return with_folders(self.catalog, str(self._parameters.get("experiment")), str(name))
        found: dict[str, Any] = super().__getitem__(key)
        return found

    def _require_environment(self) -> None:
        """Refuse an environment that has no folder; which there are is not known of an archive."""
        folder, name = Path(str(self.conf_source)), self.env
        if name is None or not folder.is_dir() or (folder / name).is_dir():
            return
        known = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name != self.base_env)
        raise TikmixError(f"--env {name}: there is no folder {folder / name}.{nearest_name(name, known)}")

    def source_of(self, path: Sequence[str]) -> str:
        """Name what set a parameter, or the nearest group around it: a file of the configuration, or `--params`."""
        for length in range(len(path), 0, -1):
            for place, values in self._places:
                if _holds(values, path[:length]):
                    return place
        return ""

    @functools.cached_property
    def _places(self) -> list[tuple[str, Any]]:
        """What may set parameters, the first one to count first, and the values that stand there."""
        environments = (self.env or self.default_run_env, self.base_env)
        files = [entry for environment in environments for entry in self._files_of(environment).items()]
        found = [(self._shown(file), OmegaConf.to_container(config)) for file, config in files]
        return [("--params", self.runtime_params), *found]

    # a run asks for either three times, and parsing the files takes most of its start

    @functools.cached_property
    def catalog(self) -> dict[str, Any]:
        """The catalog's configuration with placeholders for the names of the folders."""
        found: dict[str, Any] = super().__getitem__("catalog")
        return found

    @functools.cached_property
    def _parameters(self) -> dict[str, Any]:
        merged: dict[str, Any] = super().__getitem__("parameters")
        corpus = merged.get("corpus")
        if not isinstance(corpus, dict):
            return merged  # the check of the parameters refuses it
        corpus |= self._of_environment()
        for name in _TAKEN_WHOLE:
            if isinstance(found := corpus.get(name), dict):
                corpus[name] = {key: value for key, value in found.items() if value is not None}
        return merged

    def _of_environment(self) -> dict[str, Any]:
        """Return the sets that the environment has of its own, with what the command line says of them."""
        files = self._files_of(self.env or self.default_run_env)
        corpora = [OmegaConf.to_container(config).get("corpus") for config in files.values()]
        own = {name for corpus in corpora if isinstance(corpus, dict) for name in corpus}
        resolved: dict[str, Any] = self._merge_and_resolve("parameters", files).get("corpus") or {}
        return {name: resolved[name] for name in _TAKEN_WHOLE if name in own}

    def _files_of(self, environment: str) -> dict[Path, Any]:
        """Read an environment's files of parameters."""
        folder = self._get_conf_env_path(environment)
        found: dict[Path, Any] = self._read_dir_configs(folder, self.config_patterns["parameters"], "parameters", set())
        return found

    def _read_dir_configs(
        self,
        conf_path: str,
        patterns: Iterable[str],
        key: str,
        processed_files: set[Path],
        read_environment_variables: bool | None = False,
    ) -> dict[Path, Any]:
        """Read a folder's files as Kedro does, each within bounds."""
        found: dict[Path, Any]
        if self._protocol != "file" or not Path(conf_path).is_dir():
            found = super()._read_dir_configs(conf_path, patterns, key, processed_files, read_environment_variables)
            return found
        named = {Path(name) for one in patterns for name in self._fs.glob(Path(conf_path, one).as_posix())}
        files = sorted(one for one in named if not self._is_hidden(str(one)) and self._is_valid_config_path(one))
        found = {file: read_config(file, of_names=key == "parameters") for file in files}
        processed_files.update(files)
        for config in found.values() if read_environment_variables else ():
            self._resolve_environment_variables(config)
        try:
            self._check_duplicates(key, found)
        except ValueError as error:
            raise TikmixError(str(error)) from None
        return found

    def _merge_and_resolve(self, key: str, config_per_file: dict[Path, Any]) -> dict[str, Any]:
        """Resolve interpolations as Kedro does."""
        try:
            require_bounded(self._written(key, config_per_file))
            resolved: dict[str, Any] = super()._merge_and_resolve(key, config_per_file)
        except (OmegaConfBaseException, RecursionError, UnboundedError) as error:
            name = str(getattr(error, "full_key", None) or "")
            given = key == "parameters" and _holds(self.runtime_params, name.split("."))
            files = [self._shown(file) for file in config_per_file]
            places = ["--params"] if given else files if name else [*files, "--params"]
            problem = str(error).partition("\n")[0].rstrip(".")
            message = f"{name}: {problem}. {_INTERPOLATIONS}" if name else f"{problem}."
            raise TikmixError(f"{' or '.join(places)}: {message}") from None
        return resolved

    def _written(self, key: str, config_per_file: dict[Path, Any]) -> dict[str, Any]:
        """Merge what files and the command line say, interpolations as they are written."""
        said = [OmegaConf.to_container(config) for config in config_per_file.values()]
        return functools.reduce(merged_parameters, [*said, self.runtime_params] if key == "parameters" else said, {})

    @staticmethod
    def _soft_merge(config: dict[str, Any], env_config: dict[str, Any], env_path: str | None = None) -> dict[str, Any]:
        """Merge plain values: OmegaConf would refuse a list in the place of a group, and not say where."""
        del env_path
        return merged_parameters(config, env_config)

    def _shown(self, file: Path) -> str:
        return os.path.relpath(file, Path(self.conf_source).parent)


def _holds(values: Any, path: Sequence[str]) -> bool:
    """Tell whether nested values have something at a path."""
    for part in path:
        if not isinstance(values, Mapping) or part not in values:
            return False
        values = values[part]
    return True
