"""What a fitted model answers: recommendations, similar items and users, scores."""
