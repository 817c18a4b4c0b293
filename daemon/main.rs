//! `callvaultd`: the daemon.

fn main() -> std::process::ExitCode {
    callvault_service::main()
}
