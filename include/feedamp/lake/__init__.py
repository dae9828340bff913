"""Parquet files, and the manifests that make them count."""
