"""Hupan (湖畔): the Yunhu user module, as a server, an SDK and a command line."""

__version__ = "0.1.0"
