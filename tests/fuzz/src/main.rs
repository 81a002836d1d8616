//! The program of every target: which one it is says its name.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gantry_fuzz_targets::run(env!("CARGO_BIN_NAME"), bytes));
