"""The integrators: plain arrays in and out, never xarray."""
