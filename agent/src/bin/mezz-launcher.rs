//! The launcher by itself, for this crate's tests; users have `mezz launch`.

use std::process::ExitCode;

fn main() -> ExitCode {
    mezz_agent::launcher::run(std::env::args_os().skip(1))
}
