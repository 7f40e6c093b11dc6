//! Fuzzes [`peerloom_proto_fuzz::body`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| peerloom_proto_fuzz::body(data));
