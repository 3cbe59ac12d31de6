"""A decided mixture as the files that pre-training frameworks read: texts, nothing is written to disk here."""
