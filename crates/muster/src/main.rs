//! The `muster` program.

use std::process::ExitCode;

use clap::Parser;
use muster::cli::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse();
    muster::logging::start();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .thread_name(muster::cpu::RUNTIME_THREAD)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("muster: could not start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(muster::cli::run(cli));
    // What still blocks a thread (reading standard input, say) is not waited for.
    runtime.shutdown_background();
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("muster: {error:#}");
            muster::exit_code(&error)
        }
    }
}
