"""Places orders in sellers' FeedAMP accounts and brings fulfillments back; plain Python, without Airflow."""

__version__ = "0.1.0"
