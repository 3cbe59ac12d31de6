"""Kedro's project settings (https://docs.kedro.org/en/stable/configure/settings)."""

import os

from tikmix_pipeline import interrupts  # noqa: F401 (first: what follows takes a second)
from tikmix_pipeline.run import placeholder
from tikmix_pipeline.session.config import TikmixConfigLoader
from tikmix_pipeline.session.kedro_session import TikmixSession
from tikmix_pipeline.session.progress_hooks import ProgressHooks
from tikmix_pipeline.session.run_hooks import RunHooks
from tikmix_pipeline.session.start_hooks import START
from tikmix_pipeline.session.tracking_hooks import TrackingHooks

# idle OpenMP threads that spin bring a shared machine to a standstill; read when torch is first imported
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

SESSION_CLASS = TikmixSession
_RUN_HOOKS = RunHooks()
HOOKS = (START, _RUN_HOOKS, TrackingHooks(_RUN_HOOKS), ProgressHooks(_RUN_HOOKS))
CONFIG_LOADER_CLASS = TikmixConfigLoader
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    # an environment adds to the base parameters instead of replacing whole groups
    "merge_strategy": {"parameters": "soft"},
    "custom_resolvers": {"folder": placeholder},
}
