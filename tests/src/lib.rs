//! Gantry's test kit, end-to-end tests, simulation and benches.
