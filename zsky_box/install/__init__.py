"""Installing models: what is fetched is pinned, hashed, looked into, and appears in the catalogue all at once.

`installing` is the way in. The room knows the hub's HTTP and the disk; it knows neither the service, nor the commands,
nor torch: weights are quantised by a child process.
"""
