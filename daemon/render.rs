//! `callvault-render`: see the crate of that name, which holds all of it.

/// Serves render jobs on the standard streams.
fn main() -> std::process::ExitCode {
    callvault_render::main()
}
