"""One namespace of a cluster: the backend of Redis, where the keys are on several nodes."""
