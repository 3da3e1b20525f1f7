"""Latency of the deploy form: how it is measured, on which runtime, and what is remembered."""
