//! Facts that need more than one crate, one module a subject.

mod vectors;
