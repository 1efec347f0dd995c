"""Losses as pure functions of per-token log-probabilities: no communication, no model."""
