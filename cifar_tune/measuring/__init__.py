"""The latency protocol, the processes it runs in, and the rows it gives."""
