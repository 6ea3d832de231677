"""How any experiment runs: accounts and controls change numbers, `presentation` only reports them."""
