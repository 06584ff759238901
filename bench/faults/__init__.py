"""Faults put into real trainings by real mechanisms, and what `jinmaek prove` says about them."""
