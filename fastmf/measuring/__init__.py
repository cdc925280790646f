"""How good a model is: metrics on plain arrays, and the evaluation of a model."""
