"""Online: predictions over HTTP, always up, as quick as the wire allows."""
