"""What `qaoa` is made of: the statevector of a gate circuit and published angles."""
