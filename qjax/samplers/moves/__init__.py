"""What several sampling algorithms share: sweeps, acceptance rules, exchanges, clusters, streams, temperatures."""
