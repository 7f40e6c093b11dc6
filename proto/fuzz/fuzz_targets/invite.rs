//! Fuzzes [`peerloom_proto_fuzz::invite`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| peerloom_proto_fuzz::invite(data));
