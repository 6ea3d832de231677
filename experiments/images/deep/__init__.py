"""Networks of several convolutions, trained to the paper's accuracies with and without the annealer."""
