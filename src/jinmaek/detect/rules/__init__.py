"""The rules, by family; each has a page in docs/rules."""
