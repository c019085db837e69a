"""Reads tables of any form into columns, and tells which rows cannot be used."""
