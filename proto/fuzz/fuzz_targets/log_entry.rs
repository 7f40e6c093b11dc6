//! Fuzzes [`peerloom_proto_fuzz::log_entry`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| peerloom_proto_fuzz::log_entry(data));
