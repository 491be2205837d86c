//! Fuzzes `checks::ignore_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::ignore_file(data));
