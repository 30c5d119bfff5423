"""Scripts that measure and draw; their results are in README.md beside them."""
