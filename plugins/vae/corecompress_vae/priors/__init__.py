"""Priors: probability models of latents. Each is one class with the rate of training and the tables of coding."""
