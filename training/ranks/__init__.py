"""One model, several machines: a crew of processes over TCP, and what each of them does."""
