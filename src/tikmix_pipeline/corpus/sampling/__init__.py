"""Sampling: a few megabytes of a domain of any size, each document equally likely, read at random places."""
