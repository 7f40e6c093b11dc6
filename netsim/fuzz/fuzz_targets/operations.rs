//! Fuzzes `netsim::operations::run`: messages and faults in virtual time, judged by every invariant.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| netsim::operations::run(data));
