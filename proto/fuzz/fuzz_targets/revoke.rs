//! Fuzzes [`peerloom_proto_fuzz::revoke`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| peerloom_proto_fuzz::revoke(data));
