//! Moto's server, one for each test binary.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::OnceLock,
    thread,
};

/// Runs the server inside an interpreter that leaves as soon as its standard input closes, which
/// the kernel does for a test process however it ends.
const RUN: &str = "
import os, runpy, sys, threading
threading.Thread(target=lambda: (sys.stdin.buffer.read(), os._exit(0)), daemon=True).start()
sys.argv = [sys.argv[1], '-H', '127.0.0.1', '-p', '0']
runpy.run_path(sys.argv[0], run_name='__main__')
";

struct Server {
    endpoint: String,
    _process: Child,
}

/// Returns the server's URL; `None` where `MUSTER_MOTO` names no `moto_server`.
///
/// # Panics
///
/// In continuous integration (`CI=true`), where a missing server is a failure.
pub fn endpoint() -> Option<&'static str> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    let start = || match env::var_os("MUSTER_MOTO") {
        Some(program) => Some(start(Path::new(&program))),
        None if env::var("CI").is_ok_and(|ci| ci == "true") => {
            panic!("MUSTER_MOTO must name moto_server in continuous integration")
        }
        None => None,
    };
    let endpoint = SERVER
        .get_or_init(start)
        .as_ref()
        .map(|server| server.endpoint.as_str());
    if endpoint.is_none() {
        // Past the capture of test output: a skipped test must not look like one that passed.
        let test = thread::current().name().unwrap_or_default().to_owned();
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED {test}: MUSTER_MOTO names no moto_server"
        );
    }
    endpoint
}

fn start(program: &Path) -> Server {
    let python = program.with_file_name("python3");
    let mut process = Command::new(&python)
        .args(["-u", "-c", RUN])
        .arg(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("start {}: {error}", python.display()));
    let mut lines = BufReader::new(process.stderr.take().expect("stderr is piped")).lines();
    let mut said = Vec::new();
    let endpoint = loop {
        let Some(Ok(line)) = lines.next() else {
            panic!("moto ended: {}", said.join("\n"))
        };
        if let Some((_, endpoint)) = line.split_once("Running on ") {
            break endpoint.trim().to_owned();
        }
        said.push(line);
    };
    // A full pipe would stop the server.
    thread::spawn(move || lines.for_each(drop));
    Server {
        endpoint,
        _process: process,
    }
}
