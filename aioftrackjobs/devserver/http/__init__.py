"""The ASGI application: endpoints, request bodies, responses and backpressure."""
