//! Fuzzes [`peerloom_proto_fuzz::prekey`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| peerloom_proto_fuzz::prekey(data));
