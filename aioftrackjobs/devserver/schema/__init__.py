"""Schema documents, and the model of entity types, attributes and relations made from them."""
