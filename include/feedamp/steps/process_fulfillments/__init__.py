"""Validates changed orders, reports their errors, and closes orders whose units are all shipped or cancelled."""
