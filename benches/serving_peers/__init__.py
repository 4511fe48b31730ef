"""What `benches/serving.py` measures, and with what: models, servers, peers, load."""
