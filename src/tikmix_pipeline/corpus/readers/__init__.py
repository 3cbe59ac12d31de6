"""Readers: the files of a source become documents, one file per format.

A reader takes (name, bytes) of one file after the other, in the order of their names, and yields documents. What a file
turns out not to be is reported with its name.
"""
