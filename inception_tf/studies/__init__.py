"""The paper's claims, each to be seen by one command: `inception-tf study`."""
