"""E(x): Qubos, the forms of their couplings, labels, penalties, files. Knows bits, never parameters."""
