//! The flags that override settings, for the commands that take them.

use std::net::SocketAddr;
use std::path::PathBuf;

use muster_base::settings::listen_address;
use serde::Serialize;

/// Flags that override the file and the environment, where they are given.
#[derive(Clone, Debug, Default, Serialize, clap::Args)]
pub struct Overrides {
    /// Where the queue, the photographs, the results and the gallery are kept
    #[arg(long = "data", value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = listen_address)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// Workers never exceeded [default: the number of cores]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_instances: Option<u32>,
    /// Idle time before the fleet shrinks; 0 sends idle workers away at once [default: 1]
    #[arg(long, value_name = "SECONDS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_grace_s: Option<f64>,
    /// Workers kept even without work [default: 0]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_instances: Option<u32>,
    /// `--profile`, which every command has.
    #[arg(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
}
