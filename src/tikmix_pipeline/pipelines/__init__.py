"""Thin Kedro wiring: one folder per public pipeline. A node unpacks typed parameters, calls one room and returns."""
