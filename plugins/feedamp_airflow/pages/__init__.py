"""The pages below `/feedamp/` of Airflow's API server; they read the state only."""
