"""What goes out: model directories, and recommendations in Parquet."""
