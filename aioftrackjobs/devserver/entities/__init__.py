"""Reading entities: what a projection selects, its rows, and their form in a response."""
