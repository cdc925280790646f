"""SVD++: stochastic gradient descent in which a user is also what he has rated."""
