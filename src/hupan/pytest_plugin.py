"""The pytest plugin: `hupan`, `hupan_redirect` and `hupan_asgi`, loaded by its entry point."""
