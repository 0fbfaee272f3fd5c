"""Engines: where tensors are worked on."""
