"""Tests of Shortlist; folders mirror the packages."""
