"""The version, where the rooms can have it without the names of the SDK."""

__all__ = ["__version__"]

__version__ = "0.1.0"
