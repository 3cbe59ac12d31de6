"""Sampling: a few megabytes of a domain of any size, each document equally likely, read at random places.

Every sampler takes files in an order that does not depend on the machine, the most UTF-8 bytes of text to draw
(`limit_bytes`), which bound its memory, where it reads much the most compressed bytes to read (`budget_bytes`), and the
generator that decides.
"""
