"""Gradient descent on ratings that say only what was chosen, beside items drawn at random."""
