//! Fuzzes `checks::layer_index`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::layer_index(data));
