# Derived from `_async/__init__.py` by `scripts/make_sync.py`: do not edit.
