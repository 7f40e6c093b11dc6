//! Fuzzes [`peerloom_proto_fuzz::frame_on_link`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| peerloom_proto_fuzz::frame_on_link(data));
