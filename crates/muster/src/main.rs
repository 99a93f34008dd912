//! The `muster` program.

mod cli;
mod commands;
mod exit;
mod flags;
mod up;

use std::process::ExitCode;

use clap::Parser;
use cli::Cli;
use muster_base::{cpu, logging, print_error_line};
use muster_jobs::Printable;

fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| {
        // What it quotes may be a file's name that the shell put there.
        let quoted = std::env::args_os().map(|arg| Printable(&arg.to_string_lossy()).to_string());
        Cli::try_parse_from(quoted).err().unwrap_or(error).exit()
    });
    logging::start();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .thread_name(cpu::RUNTIME_THREAD)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            print_error_line!("muster: could not start: {error}");
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
