"""Configurations: `get_config(variant)` returns a ConfigDict. Nothing here imports JAX."""
