//! Support for the suites under `tests/`.
