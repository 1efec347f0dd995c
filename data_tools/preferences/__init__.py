"""Preference pairs for DPO: subjective ones, judged, and objective ones, out of multiple-choice questions."""
