//! The `peerloom` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    peerloom_node::commands::main()
}
