"""Carrying out the repair plan: copies come in and go, one step at a time."""
