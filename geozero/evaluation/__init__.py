"""Evaluation: score lists of records under two protocols, with intervals, groups, baselines and diagnoses."""
