"""Running the application on a socket, and inspecting the server that runs."""
