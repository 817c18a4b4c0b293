//! `callvault-recorder`: started by `callvaultd`, which hands it everything it needs.

fn main() -> std::process::ExitCode {
    callvault_capture::main()
}
