//! Fuzzes `checks::dockerfile`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::dockerfile(data));
