"""Encoders: analysis transforms of weights into latents, and synthesis transforms back."""
