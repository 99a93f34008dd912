//! The `muster` program.

mod cli;
mod commands;
mod exit;
mod flags;
mod up;

use std::process::ExitCode;

use clap::Parser;
use cli::Cli;
use muster_base::{cpu, logging};

fn main() -> ExitCode {
    let cli = Cli::parse();
    logging::start();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .thread_name(cpu::RUNTIME_THREAD)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("muster: could not start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(cli::run(cli));
    // What still blocks a thread (reading standard input, say) is not waited for.
    runtime.shutdown_background();
    match result {
        Ok(code) => code,
        Err(error) => exit::failed(&error),
    }
}
