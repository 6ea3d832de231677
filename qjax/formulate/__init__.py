"""From parameters to a Qubo: quadratic models of an objective, encodings of parameters, and their pull-back."""
