//! Fuzzes `checks::layer_tar`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::layer_tar(data));
