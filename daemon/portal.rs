//! `callvault-portal`: pages for people.

fn main() -> std::process::ExitCode {
    callvault_portal::main()
}
