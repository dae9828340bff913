"""The lake: Parquet files, and the manifests that name the valid ones."""
