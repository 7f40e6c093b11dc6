//! `netsim`: the simulator and the benches, see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    netsim::main()
}
