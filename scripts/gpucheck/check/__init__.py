"""Measures Isobar on a GPU host: see README.md beside this folder."""
