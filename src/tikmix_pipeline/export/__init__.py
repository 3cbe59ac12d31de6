"""A decided mixture as the files that pre-training frameworks read: texts, nothing is written to disk here.

A trainer is one function that writes its files, in the file of its family, and one line in `registry.TRAINERS`. May
import `mixture`, `columns` and `errors`: a `Schedule` holds all that a writer knows. The way back is `consumed`, which
reads what a trainer's state says of each domain.
"""
