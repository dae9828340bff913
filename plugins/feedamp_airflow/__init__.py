"""The Airflow integration of FeedAMP; importing this package alone does not import Airflow."""
