"""Tools that stand beside the package: each imports `tikmix_pipeline`, and nothing of the package imports one."""
