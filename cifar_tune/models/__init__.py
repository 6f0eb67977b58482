"""Architectures, their weights, and what is done to both."""
