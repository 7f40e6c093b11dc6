//! Fuzzes [`peerloom_proto_fuzz::stun`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| peerloom_proto_fuzz::stun(data));
