"""Orders into sellers' FeedAMP accounts, fulfillments back; plain Python, no Airflow."""

__version__ = "0.1.0"
