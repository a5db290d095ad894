"""What an exported network is made of: its folded layers, what is done to requests, its files."""
