//! `callvaultctl`, the operator's command.

fn main() -> std::process::ExitCode {
    callvault_ctl::main()
}
