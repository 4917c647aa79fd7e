"""What the kernel says about processes and cores, and the processes that are measured."""
