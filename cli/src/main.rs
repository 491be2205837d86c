//! The `kiln` binary.

// musl's allocator serves one thread at a time; glibc's is fine as it is.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::main()
}
