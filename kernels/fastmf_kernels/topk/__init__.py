"""The k best items of every query, without ever holding all scores."""
