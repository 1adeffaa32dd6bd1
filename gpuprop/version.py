"""The version of gpuprop; every room may read it here."""

__all__ = ["__version__"]

__version__ = "0.1.0"
