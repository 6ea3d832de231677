"""A trained network of several convolutions at one bit a weight: does the annealer choose the bits better?"""
