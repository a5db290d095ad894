"""From where images lie to the batches that a network is trained and evaluated on."""
