"""TiKMiX Pipeline: measures which data mixture a language model should train on next."""

__version__ = "0.1.0"
