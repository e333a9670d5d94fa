//! Hands the arguments to [`syncq::cli`] and its exit code to the system.

fn main() -> std::process::ExitCode {
    syncq::cli::main()
}
