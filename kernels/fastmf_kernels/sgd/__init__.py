"""Stochastic gradient descent over blocks of ratings."""
