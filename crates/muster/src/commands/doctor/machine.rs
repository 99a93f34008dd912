//! What this machine itself has to have.

use std::process::Command;

use anyhow::Context;
use serde_json::Value;

use super::findings::{Findings, Outcome};
use super::policy::IamRole;
use muster_api::client::Client;
use muster_base::ErrorChain;
use muster_base::backend::{Backend, Role};
use muster_base::settings::{FleetKind, ModelSettings, QueueKind, Settings, WebSettings};
use muster_recognize::decode::libheif;

/// Resident memory that one worker is counted with.
const WORKER_BYTES: u64 = 250 << 20;

/// Checks what these roles need here, with so many workers on this machine.
pub(super) async fn check(
    settings: &Settings,
    iam_roles: &[IamRole],
    workers: u32,
    findings: &mut Findings,
) {
    let controls = iam_roles.contains(&IamRole::Controller);
    if controls {
        findings.add("settings", Outcome::Passed(effects(settings)));
    }
    if workers > 0 {
        let before_a_fleet = controls && settings.fleet.local_workers() > 0;
        findings.add("processor", processor(before_a_fleet));
        findings.add("memory", memory(settings.fleet.kind, workers));
        let installed = findings.add("models", models(&settings.models));
        findings.add("libheif", Outcome::Passed(heif()));
        // A bundle brings the models along.
        if !installed || !settings.remote() {
            findings.add("python", python());
        }
    }
    if keeps_data(settings, iam_roles) {
        findings.add("data folder", data_folder(settings).await);
    }
    if iam_roles.contains(&IamRole::Web) {
        findings.add("address", address(&settings.web).await);
    }
}

/// Whether anything is kept in the data folder: stores, queues, or the lock of a local fleet.
fn keeps_data(settings: &Settings, iam_roles: &[IamRole]) -> bool {
    let stores = [
        &settings.storage.input_store,
        &settings.storage.output_store,
        &settings.storage.state_store,
    ];
    stores.iter().any(|store| store.is_none())
        || settings.queues.kind == QueueKind::Local
        || settings.fleet.kind == FleetKind::Local && iam_roles.contains(&IamRole::Controller)
}

fn effects(settings: &Settings) -> String {
    match settings.fleet.without_effect() {
        said if said.is_empty() => "each that is set has an effect".to_owned(),
        said => said.join("; "),
    }
}

fn processor(before_a_fleet: bool) -> Outcome {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let arch = std::env::consts::ARCH;
    #[cfg(target_arch = "x86_64")]
    if !std::arch::is_x86_feature_detected!("avx2") {
        return Outcome::failed(
            format!("{cores} cores, {arch} without AVX2: recognition will be slow"),
            "use a machine with AVX2 (Intel since 2013, AMD since 2015)",
        );
    }
    let mut detail = format!("{cores} cores, {arch}");
    // What a burstable type does without CPU credits.
    if before_a_fleet && let Some(withheld) = muster_fleet::withheld_since_start() {
        detail += &format!(
            "; {:.0} % of what was asked for since the start was withheld: the workers of this machine rest \
             while that is a quarter or more",
            100.0 * withheld
        );
    }
    Outcome::Passed(detail)
}

fn memory(fleet: FleetKind, workers: u32) -> Outcome {
    let needed = (WORKER_BYTES * u64::from(workers)) >> 20;
    let Some(available) = available_memory_mib() else {
        return Outcome::Passed(format!("{needed} MiB needed for {workers} workers"));
    };
    let detail = format!("{available} MiB available, {needed} MiB for {workers} workers");
    if available >= needed {
        return Outcome::Passed(detail);
    }
    Outcome::failed(
        detail,
        match fleet {
            FleetKind::Local => "lower max_instances, or free memory",
            FleetKind::Ec2 => "lower ec2.local_workers, or free memory",
        },
    )
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

fn models(settings: &ModelSettings) -> Outcome {
    if let Err(error) = settings.dir() {
        return Outcome::failed(format!("{error:#}"), "set MUSTER_MODELS_DIR");
    }
    let verified = settings.installation().and_then(|installation| {
        installation.verify()?;
        Ok(installation)
    });
    match verified {
        Ok(installation) => Outcome::Passed(format!(
            "profile {}, verified, in {}",
            installation.profile().name,
            installation.folder().display()
        )),
        Err(error) => Outcome::failed(
            ErrorChain(error.as_ref()).to_string(),
            "run `muster models install` with the profile that is set",
        ),
    }
}

/// Whether HEIC and AVIF can be decoded: who never sends them lacks nothing.
fn heif() -> String {
    match libheif() {
        Some(found) if found.heic && found.avif => {
            format!("{}: HEIC and AVIF are taken", found.version)
        }
        found => {
            let taken = match &found {
                Some(found) if found.heic => format!("{} has no decoder of AVIF", found.version),
                Some(found) if found.avif => format!("{} has no decoder of HEIC", found.version),
                Some(found) => format!("{} decodes neither HEIC nor AVIF", found.version),
                None => "is not here: HEIC and AVIF are refused".to_owned(),
            };
            format!(
                "{taken}; `apt-get install libheif1` (from Debian 13 on with libheif-plugin-libde265 and \
                 libheif-plugin-dav1d) and a restart of the workers change that"
            )
        }
    }
}

fn python() -> Outcome {
    let remedy = "install Python 3 with venv and pip; only `muster models install` needs it";
    match Command::new("python3")
        .args([
            "-c",
            "import venv, ensurepip, sys; print(sys.version.split()[0])",
        ])
        .output()
    {
        Ok(output) if output.status.success() => Outcome::Passed(format!(
            "{} with venv",
            String::from_utf8_lossy(&output.stdout).trim()
        )),
        Ok(_) => Outcome::failed("python3 has no venv or pip", remedy),
        Err(error) => Outcome::failed(format!("python3 does not run: {error}"), remedy),
    }
}

async fn data_folder(settings: &Settings) -> Outcome {
    let folder = settings.storage.data_dir.display();
    // A folder that is absent is made by `up`; asking must not leave one behind.
    if !settings.storage.data_dir.exists() {
        return Outcome::Passed(format!("{folder} will be made"));
    }
    let used = if settings.remote() {
        // Only a part of what Muster keeps is here; opening would ask AWS for the rest.
        tempfile::tempfile_in(&settings.storage.data_dir)
            .map(drop)
            .context("make a file in it")
    } else {
        Backend::open(settings, Role::Web).await.map(drop)
    };
    match used {
        Ok(()) => Outcome::Passed(format!("{folder} can be used")),
        Err(error) => Outcome::failed(
            format!("{folder}: {error:#}"),
            "choose another with data_dir or --data",
        ),
    }
}

async fn address(settings: &WebSettings) -> Outcome {
    let listen = settings.listen;
    if tokio::net::TcpListener::bind(listen).await.is_ok() {
        return Outcome::Passed(format!("{listen} is free"));
    }
    let running = match Client::new(&format!("http://{listen}"), None) {
        // Which asks for no key.
        Ok(client) => client
            .get::<Value>("/openapi.json")
            .await
            .is_ok_and(|document| document["info"]["title"] == "Muster"),
        Err(_) => false,
    };
    if running {
        return Outcome::Passed(format!("a Muster runs at {listen}"));
    }
    Outcome::failed(
        format!("{listen} is taken, and not by a Muster"),
        "stop what uses it, or choose another with listen or --listen",
    )
}
