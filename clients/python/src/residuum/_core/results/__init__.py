"""Answers to questions, as numpy arrays with names, tables and plots. They send nothing: both clients share them."""
