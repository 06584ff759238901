"""Designed experiments: a recipe with settings varied, seeds paired, and what the difference between the arms shows."""
