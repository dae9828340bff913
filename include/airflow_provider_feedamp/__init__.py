"""Empty: Airflow derives this name from the distribution's and imports it when it looks for example DAGs."""
