"""What do mocks of processors, a noise model and gates make of the same hybrid step?"""
