"""Gradient descent: the one jitted optax loop, what runs it from the host, and its checkpoints."""
