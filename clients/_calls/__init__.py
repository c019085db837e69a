"""What is asked and how answers are read, without any input or output."""
