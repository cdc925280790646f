"""What comes in: Parquet, text and arrays to ratings with dense indices, and splits of them."""
