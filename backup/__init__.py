"""The application: server-free backup and restore."""
