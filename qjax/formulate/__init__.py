"""From parameters to a Qubo: quadratic models of an objective, encodings of leaves, and their pull-back."""
