"""Speed and quality, each measured by a script that prints the table it is quoted from."""
