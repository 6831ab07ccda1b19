"""The pages of the server for browsers: Jobs, requests and events, and the menu of actions."""
