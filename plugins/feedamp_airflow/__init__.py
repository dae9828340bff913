"""Everything of FeedAMP that speaks Airflow; importing this package alone does not import Airflow."""
