"""Variational autoencoders for text."""
