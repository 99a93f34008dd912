//! A gallery of many faces, measured beside a comparison with every face.
//!
//! `make bench-gallery`, or
//! `cargo bench --workspace --bench gallery -- --faces 1000000 --per-person 4 --probes 400 --json`
//!
//! The identities are synthetic and seeded. An identity is a random direction; each of its faces,
//! and each probe of it, is that direction mixed with another random one, so that its cosine to
//! the identity's is the root of a number between 0.4 and 0.8: two faces of a person have a cosine
//! of 0.6 on average, as those of real people have. Every other probe is of nobody: its nearest
//! face is the greatest of many chance similarities, the hardest to find.
//!
//! The gallery stands in an object store in a temporary folder and is used through the same log,
//! folder of segments and search as in service. `ready` and `search` are measured in a
//! process of their own, started after the gallery was written; times are of one thread, once by
//! the clock and once by the processor time used, which others on the machine do not disturb.

use std::borrow::Cow;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_gallery::calibration::Cutoff;
use muster_gallery::{
    Change, Embeddings, EnrolledFace, Gallery, GalleryStore, Person, SegmentCache, Written,
};
use muster_jobs::{Embedding, ShippedCalibration};
use object_store::local::LocalFileSystem;
use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

const DIMENSIONS: usize = 128;
const MODEL: &str = "synthetic";
const SEED: u64 = 5;
/// What the measured cutoff is computed from, beside the gallery.
const SHIPPED: ShippedCalibration = ShippedCalibration {
    cutoff: 0.363,
    impostors: None,
};
/// Who are asked for: as many as an answer may need.
const CANDIDATES: usize = 5;
const INSERTS: usize = 200;

struct Options {
    faces: usize,
    per_person: usize,
    probes: usize,
    json: bool,
    /// The folder to search in, in the process that is measured.
    search: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Report {
    faces: usize,
    people: usize,
    build_s: f64,
    store_bytes: u64,
    cached_bytes: u64,
    search: Searched,
}

#[derive(Debug, Serialize, Deserialize)]
struct Searched {
    ready_s: f64,
    first_search_ms: f64,
    search_p50_ms: f64,
    search_p99_ms: f64,
    search_cpu_p50_ms: f64,
    search_cpu_p99_ms: f64,
    brute_force_p50_ms: f64,
    brute_force_p99_ms: f64,
    recall_at_1: f64,
    recall_at_1_enrolled: f64,
    recall_at_1_strangers: f64,
    insert_visible_p50_ms: f64,
    insert_visible_max_ms: f64,
    /// What one in 64 inserts does after it is visible.
    compaction_max_ms: f64,
    /// The cutoff, which a worker computes once for each version.
    cutoff_ms: f64,
    /// 100 people from the middle on, and how many there are.
    page_ms: f64,
    /// Until the embedding is gone from the store and from this machine.
    removal_ms: f64,
    /// After the searches. What the process read from files and let go again is not of it.
    resident_bytes: u64,
    /// After everything was compared with every face, which keeps all vectors in memory.
    resident_after_brute_force_bytes: u64,
}

struct Random(SplitMix64);

impl Random {
    fn seeded(seed: u64) -> Self {
        Self(SplitMix64::seed_from_u64(seed))
    }

    fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Between 0 and 1.
    fn share(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }

    /// A random direction: coordinates that are sums of twelve are close to normally distributed.
    fn direction(&mut self) -> Embedding {
        let mut normal = || (0..12).map(|_| self.share()).sum::<f32>() - 6.0;
        let values: Vec<f32> = (0..DIMENSIONS).map(|_| normal()).collect();
        Embedding::normalise(&values).expect("a sum of random numbers is not all zero")
    }

    fn face(&mut self, identity: &Embedding) -> Embedding {
        let share = 0.4 + 0.4 * self.share();
        let (of_identity, of_other) = (share.sqrt(), (1.0 - share).sqrt());
        let other = self.direction();
        let values = identity.as_slice().iter().zip(other.as_slice());
        let values: Vec<f32> = values
            .map(|(i, o)| of_identity * i + of_other * o)
            .collect();
        Embedding::normalise(&values).expect("two directions do not cancel out")
    }
}

/// The identity of that number, and what its faces are drawn with.
fn identity(number: usize) -> (Embedding, Random) {
    let mut random = Random::seeded(SEED ^ (number as u64).wrapping_mul(0xd134_2543_de82_ef95));
    (random.direction(), random)
}

fn person(number: usize, faces: usize) -> Person {
    let (identity, mut random) = identity(number);
    let face = |_| {
        let embeddings = Embeddings::of(MODEL, random.face(&identity));
        EnrolledFace::new(format!("{number}.jpg"), embeddings, 0)
    };
    Person {
        external_id: Some(format!("key-{number}")),
        ..Person::new(
            format!("Person {number}"),
            (0..faces).map(face).collect(),
            0,
        )
    }
}

fn main() {
    let options = options();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("start the runtime");
    match &options.search {
        Some(folder) => {
            let searched = runtime.block_on(search(Path::new(folder), &options));
            println!("{}", serde_json::to_string(&searched).expect("numbers"));
        }
        None => {
            let report = runtime.block_on(measure(&options));
            if options.json {
                println!("{}", serde_json::to_string(&report).expect("numbers"));
            } else {
                println!("{report:#?}");
            }
        }
    }
}

fn options() -> Options {
    let mut options = Options {
        faces: 1_000_000,
        per_person: 4,
        probes: 400,
        json: false,
        search: None,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || {
            arguments
                .next()
                .unwrap_or_else(|| panic!("{argument} needs a value"))
        };
        let number = |value: String| value.parse().expect("a number");
        match argument.as_str() {
            "--faces" => options.faces = number(value()),
            "--per-person" => options.per_person = number(value()),
            "--probes" => options.probes = number(value()),
            "--search" => options.search = Some(value()),
            "--json" => options.json = true,
            // What cargo passes on.
            "--bench" => {}
            unknown => panic!("{unknown} is not known"),
        }
    }
    options
}

fn store(folder: &Path) -> GalleryStore {
    let objects = folder.join("objects");
    std::fs::create_dir_all(&objects).expect("make the folder");
    let objects = LocalFileSystem::new_with_prefix(&objects).expect("open the folder");
    let cache = SegmentCache::open(folder.join("cache")).expect("make the folder");
    GalleryStore::new(Arc::new(objects.with_fsync(true)), "gallery").cached(cache)
}

async fn measure(options: &Options) -> Report {
    let folder = tempfile::tempdir().expect("make a temporary folder");
    let people = options.faces / options.per_person;
    let begun = Instant::now();
    write(&store(folder.path()), people, options.per_person).await;
    let build_s = begun.elapsed().as_secs_f64();
    let this = std::env::current_exe().expect("find this program");
    let output = Command::new(this)
        .args(["--faces", &options.faces.to_string()])
        .args(["--per-person", &options.per_person.to_string()])
        .args(["--probes", &options.probes.to_string()])
        .arg("--search")
        .arg(folder.path())
        .stderr(std::process::Stdio::inherit())
        .output()
        .expect("start the process that is measured");
    assert!(
        output.status.success(),
        "the process that is measured failed"
    );
    Report {
        faces: people * options.per_person,
        people,
        build_s,
        store_bytes: bytes(&folder.path().join("objects")),
        cached_bytes: bytes(&folder.path().join("cache")),
        search: serde_json::from_slice(&output.stdout).expect("the process's report"),
    }
}

/// Writes everybody at once.
async fn write(store: &GalleryStore, people: usize, per_person: usize) {
    let people = (0..people).map(|number| person(number, per_person));
    let gallery = Gallery::of(MODEL, people.collect());
    store.compact(&gallery).await.expect("write the segments");
}

async fn search(folder: &Path, options: &Options) -> Searched {
    let store = store(folder);
    let begun = Instant::now();
    let mut gallery = Gallery::default();
    store.sync(&mut gallery).await.expect("read the gallery");
    let ready_s = begun.elapsed().as_secs_f64();
    let people = options.faces / options.per_person;
    assert_eq!(gallery.people_count(), people);

    let mut random = Random::seeded(!SEED);
    let probes: Vec<Embedding> = (0..options.probes)
        .map(|n| match n % 2 {
            0 => {
                let (identity, _) = identity(random.next() as usize % people);
                random.face(&identity)
            }
            _ => random.direction(),
        })
        .collect();
    let first = Instant::now();
    std::hint::black_box(gallery.nearest(&probes[0], CANDIDATES));
    let first_search_ms = millis(first.elapsed());
    let (mut clock, mut cpu, mut found) = (Vec::new(), Vec::new(), Vec::new());
    for probe in &probes {
        let (begun, used) = (Instant::now(), cpu_time());
        let nearest = gallery.nearest(probe, CANDIDATES);
        cpu.push(millis(cpu_time() - used));
        clock.push(millis(begun.elapsed()));
        found.push((nearest[0].person.id, nearest[0].similarity));
    }
    let before = memory();
    let mut exactly = Vec::new();
    let mut hits = [0usize; 2];
    for (n, (probe, found)) in probes.iter().zip(&found).enumerate() {
        let begun = Instant::now();
        let nearest = gallery.nearest_exactly(probe, CANDIDATES);
        exactly.push(millis(begun.elapsed()));
        hits[n % 2] += usize::from((nearest[0].person.id, nearest[0].similarity) == *found);
    }
    let after = memory();

    // Another process's copy, brought up to date as for a request.
    let mut writer = gallery.clone();
    let (mut visible, mut compactions) = (Vec::new(), Vec::new());
    let mut last = None;
    for n in 0..INSERTS {
        let new = person(people + n, 1);
        let made = new.faces[0].embeddings.by(MODEL);
        let probe = made.expect("it has one").clone();
        let id = new.id;
        let begun = Instant::now();
        let put = |_: &Gallery| Ok::<_, ()>(Change::Put(new.clone()));
        let written = store.write(&mut writer, put).await;
        store.sync(&mut gallery).await.expect("read the gallery");
        let nearest = gallery.nearest(&probe, 1);
        visible.push(millis(begun.elapsed()));
        assert_eq!(nearest[0].person.id, id, "what was inserted is found");
        last = Some(id);
        if written.expect("change the gallery") == Written::CompactionDue {
            let begun = Instant::now();
            store.compact(&writer).await.expect("compact the gallery");
            compactions.push(millis(begun.elapsed()));
        }
    }
    let begun = Instant::now();
    std::hint::black_box(Cutoff::for_target(&gallery, &SHIPPED, 0.001));
    let cutoff_ms = millis(begun.elapsed());
    let removed = gallery.every_nth(people / 2).nth(1).map(Cow::into_owned);
    let begun = Instant::now();
    let page = gallery.page(removed.as_ref().map(|person| person.id), 100);
    std::hint::black_box((gallery.people_count(), gallery.faces(), page.len()));
    let page_ms = millis(begun.elapsed());
    let begun = Instant::now();
    for id in [removed.map(|person| person.id), last]
        .into_iter()
        .flatten()
    {
        append(&store, &mut writer, Change::Remove(id)).await;
    }
    let removal_ms = millis(begun.elapsed()) / 2.0;
    let half = (probes.len() / 2) as f64;
    let greatest = |times: &[f64]| times.iter().copied().fold(0.0, f64::max);
    let (insert_visible_max_ms, compaction_max_ms) = (greatest(&visible), greatest(&compactions));
    Searched {
        ready_s,
        first_search_ms,
        search_p50_ms: quantile(&mut clock, 0.5),
        search_p99_ms: quantile(&mut clock, 0.99),
        search_cpu_p50_ms: quantile(&mut cpu, 0.5),
        search_cpu_p99_ms: quantile(&mut cpu, 0.99),
        brute_force_p50_ms: quantile(&mut exactly, 0.5),
        brute_force_p99_ms: quantile(&mut exactly, 0.99),
        recall_at_1: (hits[0] + hits[1]) as f64 / probes.len() as f64,
        recall_at_1_enrolled: hits[0] as f64 / half,
        recall_at_1_strangers: hits[1] as f64 / half,
        insert_visible_p50_ms: quantile(&mut visible, 0.5),
        insert_visible_max_ms,
        compaction_max_ms,
        cutoff_ms,
        page_ms,
        removal_ms,
        resident_bytes: before,
        resident_after_brute_force_bytes: after,
    }
}

async fn append(store: &GalleryStore, gallery: &mut Gallery, change: Change) {
    let written = store.write(gallery, |_| Ok::<_, ()>(change.clone())).await;
    if written.expect("change the gallery") == Written::CompactionDue {
        store.compact(gallery).await.expect("compact the gallery");
        store.sync(gallery).await.expect("read the gallery");
    }
}

fn bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).expect("list the folder");
    let entries = entries.map(|entry| entry.expect("list the folder"));
    let size = |entry: std::fs::DirEntry| match entry.metadata().expect("look at the file") {
        meta if meta.is_dir() => bytes(&entry.path()),
        meta => meta.len(),
    };
    entries.map(size).sum()
}

/// The processor time of this thread.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Bytes of memory in use.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("read /proc/self/status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.expect("the kernel says it") * 1024
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() as f64 * share) as usize).min(values.len() - 1)]
}
