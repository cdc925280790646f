"""What is written: model directories, and recommendations in Parquet."""
