//! `muster token`: print the local token of the service on this machine.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use muster_base::{local_token, print_line};
use reqwest::Url;

/// Arguments of `muster token`.
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// The service's address, on this machine
    #[arg(
        long,
        default_value = "http://127.0.0.1:8000",
        conflicts_with = "data_dir"
    )]
    url: Url,
    /// The service's data folder, where another account runs it
    #[arg(long = "data", value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// Prints the token, on a line of its own.
///
/// # Errors
/// When no service with a token runs there.
pub fn run(args: &TokenArgs) -> anyhow::Result<()> {
    let token = match &args.data_dir {
        Some(data_dir) => local_token::in_folder(data_dir)?.with_context(|| {
            format!(
                "no service with a local token runs on {}: it has one while it runs, unless \
                 require_keys is set or it listens on an address of the network",
                data_dir.display()
            )
        })?,
        None => {
            let found = local_token::find(&args.url)?.with_context(|| {
                format!(
                    "this account runs no service with a local token at {}: name its address with \
                     --url, or its data folder with --data where another account runs it",
                    args.url
                )
            })?;
            found.token
        }
    };
    print_line!("{token}")?;
    Ok(())
}
