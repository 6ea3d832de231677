"""Does the hybrid find known global minima that classical searches miss at equal wall-clock?"""
