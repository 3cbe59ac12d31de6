"""Kedro's wiring: one folder per public pipeline, each with its nodes, their views and how they hang together.

A node unpacks its view, calls one room and returns a record or a table. Stages do not import each other; what is
composed of stages (`validate`, `tikmix`, `remix`, `compare`) may import them.
"""
