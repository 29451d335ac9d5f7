"""Answers to questions, as numpy arrays with names, tables and plots. They make no requests, so both clients share them."""
