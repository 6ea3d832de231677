"""Which sampler finds the lowest states at equal wall-clock and cores, one of ours or a peer?"""
