"""How often compare and "why no improvement" are right, on cases whose truth is known."""
