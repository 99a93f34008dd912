//! Measures what a request costs one web replica, with workers that answer at once:
//! `cargo build --release && cargo run --release -p muster --example web_tier`.
//!
//! The replica is a real one, `muster web` in a process of its own, with real stores and queues: this machine's, or with
//! `--aws` those of the server that `MUSTER_MOTO` names. The workers are tasks of this process: they store a result and
//! reply, and look at no photograph. CPU is that of the replica alone, all its threads, user and system, from `/proc`
//! (a tick is 10 ms), since a machine that also sends the load and answers it says little by the clock.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use clap::Parser;
use futures::future::try_join_all;
use futures::{StreamExt, TryStreamExt, stream};
use muster_base::backend::{Backend, Role};
use muster_base::settings::{AwsSettings, QueueKind, S3Url, Settings};
use muster_jobs::{
    Decision, FaceBox, FaceReport, ImageSize, Outcome, PersonRef, Recognition, Reply, Request,
    TimingMs,
};
use muster_queue::{MAX_BATCH, Outgoing, Received};
use muster_testbed::{REGION, moto};
use object_store::ObjectStoreExt;
use object_store::path::Path as Key;
use reqwest::multipart::{Form, Part};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use uuid::Uuid;

/// What the replica prints before its address.
const LISTENING: &str = "muster listens on ";
/// Workers, each with one batch of requests at a time.
const WORKERS: usize = 4;
/// Requests before the measurement: connections, caches, the first batches.
const WARM_UP: usize = 500;
/// The photograph's side.
const PIXELS: u32 = 512;

#[derive(Parser)]
struct Args {
    /// Requests measured
    #[arg(long, default_value_t = 10_000)]
    requests: usize,
    /// Clients, each with one request at a time
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Stores and queues of the server that MUSTER_MOTO names, by AWS's protocols
    #[arg(long)]
    aws: bool,
    /// The program [default: the one that is built beside this example]
    #[arg(long, env = "MUSTER_PROGRAM")]
    program: Option<PathBuf>,
    /// Keep running the load until killed, and print the replica's process id, for a profiler
    #[arg(long)]
    profile: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let folder = tempfile::tempdir()?;
    let server = if args.aws {
        Some(moto::Server::start().context("MUSTER_MOTO names no moto_server")?)
    } else {
        None
    };
    let mut settings = Settings::default();
    settings.storage.data_dir = folder.path().join("data");
    if let Some(server) = &server {
        on_aws(&mut settings, server).await?;
    }
    let file = folder.path().join("muster.toml");
    std::fs::write(&file, toml(&settings))?;
    let program = match args.program {
        Some(program) => program,
        None => std::env::current_exe()?.with_file_name("../muster"),
    };
    let (mut replica, url) = start(&program, &file).await?;
    let id = replica.id().context("the replica has ended")?;
    let backend = Backend::open(&settings, Role::Worker).await?;
    for _ in 0..WORKERS {
        let backend = backend.clone();
        tokio::spawn(async move {
            if let Err(error) = work(&backend).await {
                eprintln!("a worker has ended: {error:#}");
                std::process::exit(1);
            }
        });
    }
    let client = reqwest::Client::new();
    let photo = photograph()?;
    let load = async |requests: usize| -> anyhow::Result<()> {
        let sends = stream::iter(0..requests).map(|_| send(&client, &url, &photo));
        sends.buffer_unordered(args.clients).try_collect().await
    };
    load(WARM_UP).await?;
    if args.profile {
        println!("{id}");
        loop {
            load(args.requests).await?;
        }
    }
    let (begun, before) = (Instant::now(), cpu(id)?);
    load(args.requests).await?;
    report(
        args.requests,
        begun.elapsed(),
        &before,
        &cpu(id)?,
        photo.len(),
    );
    replica.kill().await?;
    Ok(())
}

/// Buckets of their own, and queues, which the replica makes.
async fn on_aws(settings: &mut Settings, server: &moto::Server) -> anyhow::Result<()> {
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
        anyhow::ensure!(
            std::env::var_os(name).is_some(),
            "{name} is not set: set it to anything, which the server takes"
        );
    }
    let name = format!("m{}", &Uuid::now_v7().simple().to_string()[16..]);
    for place in [
        (&mut settings.storage.input_store, "in"),
        (&mut settings.storage.output_store, "out"),
        (&mut settings.storage.state_store, "state"),
    ] {
        let bucket = format!("{name}-{}", place.1);
        let scope = format!("Credential=test/20260101/{REGION}/s3/aws4_request");
        let made = reqwest::Client::new()
            .put(format!("{}/{bucket}", server.endpoint()))
            .header("authorization", format!("AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0"))
            .body(format!(
                "<CreateBucketConfiguration><LocationConstraint>{REGION}</LocationConstraint></CreateBucketConfiguration>"
            ));
        made.send().await?.error_for_status()?;
        *place.0 = Some(S3Url {
            bucket,
            prefix: String::new(),
        });
    }
    settings.queues.kind = QueueKind::Sqs;
    settings.queues.prefix = format!("{name}-");
    settings.aws = AwsSettings {
        region: Some(REGION.to_owned()),
        endpoint: Some(server.endpoint().to_owned()),
    };
    Ok(())
}

/// The settings that this measurement makes, as the replica reads them.
fn toml(settings: &Settings) -> String {
    let mut lines = vec![format!("data_dir = {:?}", settings.storage.data_dir)];
    for (name, place) in [
        ("input_store", &settings.storage.input_store),
        ("output_store", &settings.storage.output_store),
        ("state_store", &settings.storage.state_store),
    ] {
        lines.extend(place.iter().map(|place| format!("{name} = \"{place}\"")));
    }
    if let (Some(region), Some(endpoint)) = (&settings.aws.region, &settings.aws.endpoint) {
        lines.push(format!(
            "queues = \"sqs\"\nqueue_prefix = {:?}",
            settings.queues.prefix
        ));
        lines.push(format!("region = {region:?}\nendpoint = {endpoint:?}"));
    }
    lines.join("\n")
}

async fn start(program: &Path, settings: &Path) -> anyhow::Result<(Child, String)> {
    let mut replica = Command::new(program)
        .args(["web", "--listen", "127.0.0.1:0", "--config"])
        .arg(settings)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("start {}: build it first", program.display()))?;
    let output = replica
        .stdout
        .take()
        .context("read what the replica prints")?;
    let mut lines = BufReader::new(output).lines();
    while let Some(line) = lines.next_line().await? {
        if let Some(url) = line.strip_prefix(LISTENING) {
            let url = url.to_owned();
            // What it prints from here on is nobody's to read.
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Ok((replica, url));
        }
    }
    anyhow::bail!("the replica did not start: its own words above say why")
}

/// A photograph with as many bytes as one of its size has.
fn photograph() -> anyhow::Result<Bytes> {
    let shade = |x: u32, y: u32| {
        let (x, y) = (f64::from(x), f64::from(y));
        let noise = ((x * 12.9898 + y * 78.233).sin() * 43758.5453).fract() * 24.0;
        (96.0 + 64.0 * (x / 37.0).sin() * (y / 53.0).cos() + noise) as u8
    };
    let photo = image::RgbImage::from_fn(PIXELS, PIXELS, |x, y| {
        image::Rgb([shade(x, y), shade(x + 3, y), shade(x, y + 7)])
    });
    let mut bytes = Vec::new();
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 85).encode_image(&photo)?;
    Ok(bytes.into())
}

async fn send(client: &reqwest::Client, url: &str, photo: &Bytes) -> anyhow::Result<()> {
    let length = photo.len() as u64;
    let part = Part::stream_with_length(photo.clone(), length);
    let part = part.file_name("photo.jpg").mime_str("image/jpeg")?;
    let form = Form::new().part("image", part);
    let answer = client
        .post(format!("{url}/v1/recognize"))
        .multipart(form)
        .send()
        .await?;
    let status = answer.status();
    let body = answer.text().await?;
    anyhow::ensure!(status.is_success(), "{status}: {body}");
    Ok(())
}

/// Answers requests until it is dropped.
async fn work(backend: &Backend) -> anyhow::Result<()> {
    let mut queues = BTreeMap::new();
    loop {
        let received = backend
            .requests
            .receive(MAX_BATCH, Duration::from_secs(20))
            .await?;
        let mut replies: BTreeMap<String, Vec<Outgoing>> = BTreeMap::new();
        let answers = received.iter().map(|message| answer(backend, message));
        for (reply_to, reply) in try_join_all(answers).await? {
            replies.entry(reply_to).or_default().push(reply);
        }
        for (name, replies) in replies {
            if !queues.contains_key(&name) {
                queues.insert(name.clone(), backend.queues.existing(&name).await?);
            }
            let queue = Arc::clone(&queues[&name]);
            for sent in queue.send(&replies).await? {
                sent?;
            }
        }
        let receipts: Vec<_> = received
            .into_iter()
            .map(|message| message.receipt)
            .collect();
        for deleted in backend.requests.delete(&receipts).await? {
            deleted?;
        }
    }
}

/// Stores a result with one known face, and says it.
async fn answer(backend: &Backend, message: &Received) -> anyhow::Result<(String, Outgoing)> {
    let request = Request::from_message(&message.body, &message.attributes)?;
    let bounds = FaceBox {
        x: 151.2,
        y: 120.7,
        width: 207.9,
        height: 268.3,
    };
    let person = PersonRef {
        id: Uuid::nil().to_string(),
        name: "Anna Example".to_owned(),
    };
    let face = FaceReport {
        bounds,
        landmarks: [[212.4, 228.8]; 5],
        confidence: 0.93,
        turned_deg: 0,
        decision: Decision::Match,
        person: Some(person),
        similarity: Some(0.71),
        margin: None,
        cutoff: Some(0.363),
        quality: None,
        candidates: Vec::new(),
        reasons: Vec::new(),
    };
    let recognition = Recognition {
        request_id: request.id,
        image: ImageSize {
            width: PIXELS,
            height: PIXELS,
            turned_deg: 0,
            frame: 0,
            repaired: vec![],
        },
        faces: vec![face],
        model: "sface".to_owned(),
        timing_ms: TimingMs::default(),
    };
    let result = serde_json::to_vec(&recognition)?;
    let key = Key::from(request.layout().output(request.id, &request.file));
    backend.output.put(&key, result.into()).await?;
    let outcome = Outcome::Recognized(Box::new(recognition));
    let reply = Reply::new(request.id, request.file, outcome).to_json();
    Ok((request.reply_to, reply.into()))
}

/// User and system time of each thread of a process, by the threads' names.
fn cpu(process: u32) -> anyhow::Result<BTreeMap<String, [Duration; 2]>> {
    let mut threads: BTreeMap<String, [Duration; 2]> = BTreeMap::new();
    for task in std::fs::read_dir(format!("/proc/{process}/task"))? {
        // A thread may end meanwhile.
        let Ok(stat) = std::fs::read_to_string(task?.path().join("stat")) else {
            continue;
        };
        let (name, rest) = stat.rsplit_once(')').context("read a thread's times")?;
        let name = name.split_once('(').context("read a thread's name")?.1;
        let mut ticks = rest.split_whitespace().skip(11).map(str::parse::<u64>);
        let used = threads.entry(name.to_owned()).or_default();
        for used in used {
            let ticks = ticks.next().context("read a thread's times")??;
            *used += Duration::from_millis(10 * ticks);
        }
    }
    Ok(threads)
}

fn report(
    requests: usize,
    wall: Duration,
    before: &BTreeMap<String, [Duration; 2]>,
    after: &BTreeMap<String, [Duration; 2]>,
    photo_bytes: usize,
) {
    let each = |time: Duration| time.as_secs_f64() * 1e3 / requests as f64;
    let (mut user, mut system) = (Duration::ZERO, Duration::ZERO);
    println!("{requests} requests of {photo_bytes} bytes; ms of CPU a request:");
    for (name, [user_after, system_after]) in after {
        let [user_before, system_before] = before.get(name).copied().unwrap_or_default();
        let (in_user, in_system) = (
            user_after.saturating_sub(user_before),
            system_after.saturating_sub(system_before),
        );
        user += in_user;
        system += in_system;
        println!(
            "  {name:16} user {:.3}, system {:.3}",
            each(in_user),
            each(in_system)
        );
    }
    println!(
        "  {:16} user {:.3}, system {:.3}, together {:.3}",
        "all",
        each(user),
        each(system),
        each(user + system)
    );
    println!(
        "one core carries {:.0} requests a second; by the clock, with load and workers beside it, {:.0}",
        1e3 / each(user + system),
        requests as f64 / wall.as_secs_f64(),
    );
}
