//! The render process, built beside this crate's tests, which start it as the daemon does.

fn main() -> std::process::ExitCode {
    callvault_render::main()
}
