"""Does the annealer help to train image classifiers? Whole networks (`training`) and one-bit heads (`lowbit`)."""
