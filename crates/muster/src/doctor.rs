//! `muster doctor`: what this machine lacks, and how to get it.

use std::process::{Command, ExitCode};

use clap::Args;
use muster_recognize::models::Installation;
use serde::Serialize;
use serde_json::json;

use crate::backend::{Backend, Role};
use crate::client::Client;
use crate::config::Settings;

/// Resident memory that one worker is counted with.
const WORKER_BYTES: u64 = 250 << 20;

/// Arguments of `muster doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Finding {
    name: &'static str,
    ok: bool,
    detail: String,
    /// What to do about it, where it is not as it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

impl Finding {
    fn new(name: &'static str, found: Result<String, (String, String)>) -> Self {
        match found {
            Ok(detail) => Self {
                name,
                ok: true,
                detail,
                remedy: None,
            },
            Err((detail, remedy)) => Self {
                name,
                ok: false,
                detail,
                remedy: Some(remedy),
            },
        }
    }
}

/// Prints the findings; the exit code says whether Muster can run here.
///
/// # Errors
/// Never for what it finds: that is its output.
pub async fn run(args: DoctorArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let findings = vec![
        Finding::new("processor", processor()),
        Finding::new("memory", memory(settings)),
        Finding::new("models", models(settings)),
        Finding::new("python", python()),
        Finding::new("data folder", data_folder(settings).await),
        Finding::new("address", address(settings).await),
    ];
    let ok = findings.iter().all(|finding| finding.ok);
    if args.json {
        println!("{}", json!({ "ok": ok, "findings": findings }));
    } else {
        for finding in &findings {
            let mark = if finding.ok { "ok     " } else { "MISSING" };
            println!("{mark}  {:<12} {}", finding.name, finding.detail);
            if let Some(remedy) = &finding.remedy {
                println!("         {:<12} {remedy}", "");
            }
        }
    }
    Ok(if ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn processor() -> Result<String, (String, String)> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let arch = std::env::consts::ARCH;
    #[cfg(target_arch = "x86_64")]
    if !std::arch::is_x86_feature_detected!("avx2") {
        return Err((
            format!("{cores} cores, {arch} without AVX2: recognition will be slow"),
            "use a machine with AVX2 (Intel since 2013, AMD since 2015)".to_owned(),
        ));
    }
    Ok(format!("{cores} cores, {arch}"))
}

fn memory(settings: &Settings) -> Result<String, (String, String)> {
    let needed = (WORKER_BYTES * u64::from(settings.max_instances())) >> 20;
    let Some(available) = available_memory_mib() else {
        return Ok(format!(
            "{needed} MiB needed for {} workers",
            settings.max_instances()
        ));
    };
    let detail = format!(
        "{available} MiB available, {needed} MiB for {} workers",
        settings.max_instances()
    );
    if available >= needed {
        return Ok(detail);
    }
    Err((detail, "lower max_instances, or free memory".to_owned()))
}

/// What Linux says can be used without swapping; `None` on other systems.
fn available_memory_mib() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim()
        .strip_suffix(" kB")?
        .parse::<u64>()
        .ok()
        .map(|kib| kib >> 10)
}

fn models(settings: &Settings) -> Result<String, (String, String)> {
    let root = settings
        .models_dir()
        .map_err(|error| (format!("{error:#}"), "set MUSTER_MODELS_DIR".to_owned()))?;
    let verified = Installation::open(&root)
        .and_then(|installation| installation.verify().map(|()| installation));
    match verified {
        Ok(installation) => Ok(format!("verified, in {}", installation.folder().display())),
        Err(error) => Err((
            crate::Chain(&error).to_string(),
            "run `muster models install`".to_owned(),
        )),
    }
}

fn python() -> Result<String, (String, String)> {
    let remedy = "install Python 3 with venv and pip; only `muster models install` needs it";
    match Command::new("python3")
        .args([
            "-c",
            "import venv, ensurepip, sys; print(sys.version.split()[0])",
        ])
        .output()
    {
        Ok(output) if output.status.success() => Ok(format!(
            "{} with venv",
            String::from_utf8_lossy(&output.stdout).trim()
        )),
        Ok(_) => Err(("python3 has no venv or pip".to_owned(), remedy.to_owned())),
        Err(error) => Err((format!("python3 does not run: {error}"), remedy.to_owned())),
    }
}

async fn data_folder(settings: &Settings) -> Result<String, (String, String)> {
    let folder = settings.data_dir.display();
    // A folder that is absent is made by `up`; asking must not leave one behind.
    if !settings.data_dir.exists() {
        return Ok(format!("{folder} will be made"));
    }
    match Backend::open(settings, Role::Web).await {
        Ok(_) => Ok(format!("{folder} can be used")),
        Err(error) => Err((
            format!("{error:#}"),
            "choose another with data_dir or --data".to_owned(),
        )),
    }
}

async fn address(settings: &Settings) -> Result<String, (String, String)> {
    let listen = settings.listen;
    if tokio::net::TcpListener::bind(listen).await.is_ok() {
        return Ok(format!("{listen} is free"));
    }
    let running = match Client::new(&format!("http://{listen}")) {
        Ok(client) => client.get("/v1/status").await.is_ok(),
        Err(_) => false,
    };
    if running {
        return Ok(format!("a Muster runs at {listen}"));
    }
    Err((
        format!("{listen} is taken, and not by a Muster"),
        "stop what uses it, or choose another with listen or --listen".to_owned(),
    ))
}
