"""What ``attacks.py`` runs: servers, the proxy before them, and the kinds of attacks."""
