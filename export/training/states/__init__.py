"""States of trainings: written, read, and gone on from."""
