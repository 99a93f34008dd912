//! Moto's server, one for each test binary, or one of a test's own.
//!
//! `moto/server.py` completes it with documented behaviour of EC2 that moto lacks.

use std::{
    env,
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    sync::OnceLock,
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// What the server is run by.
const SERVER: &str = include_str!("moto/server.py");

/// How long the server may take to answer a request outside AWS's protocols.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Returns the URL of the server that this test binary shares; `None` without one, see [`server`].
pub fn endpoint() -> Option<&'static str> {
    server().map(Server::endpoint)
}

/// Returns the server that this test binary shares; `None` where `MUSTER_MOTO` names no
/// `moto_server`.
///
/// # Panics
///
/// In continuous integration (`CI=true`), where a missing server is a failure.
pub fn server() -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    let server = SERVER.get_or_init(Server::start).as_ref();
    if server.is_none() {
        report_skipped();
    }
    server
}

/// Says that a test is skipped, past the capture of test output: it must not look like one that
/// passed.
fn report_skipped() {
    let test = thread::current().name().unwrap_or_default().to_owned();
    let _ = writeln!(
        std::io::stderr(),
        "SKIPPED {test}: MUSTER_MOTO names no moto_server"
    );
}

/// A running server, which ends with this value, or with the test process.
#[derive(Debug)]
pub struct Server {
    endpoint: String,
    process: Child,
}

/// How long the states last that an instance passes through; none, until set.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Transitions {
    /// From the launch or start to `running`.
    pub pending: Duration,
    /// From the request to `stopped`.
    pub stopping: Duration,
    /// From the request to `terminated`.
    pub shutting_down: Duration,
}

/// The instances that share a capacity: those that agree in everything that is given.
///
/// Tests share a server: a subnet, a launch template or a type of the test's own keeps them apart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Pool {
    /// Such as `m7i.large`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_type: Option<String>,
    /// A subnet's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet: Option<String>,
    /// `spot` or `on-demand`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub market: Option<String>,
    /// The name or id that launches call the launch template by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub launch_template: Option<String>,
}

/// An instance, as the server lists it.
#[derive(Debug, Clone, Deserialize)]
pub struct Instance {
    /// Its id.
    pub id: String,
    /// Its tag `Name`.
    pub name: Option<String>,
    /// EC2's name of its state, such as `shutting-down`.
    pub state: String,
}

impl Server {
    /// Starts a server of the caller's own; `None` where `MUSTER_MOTO` names no `moto_server`.
    ///
    /// # Panics
    ///
    /// In continuous integration (`CI=true`), where a missing server is a failure.
    pub fn start() -> Option<Server> {
        match env::var_os("MUSTER_MOTO") {
            Some(program) => Some(start(Path::new(&program))),
            None if crate::ci::in_ci() => {
                panic!("MUSTER_MOTO must name moto_server in continuous integration")
            }
            None => None,
        }
    }

    /// Returns the URL that every service answers at.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Sets how long the states last that instances pass through from now on.
    pub fn set_transitions(&self, transitions: Transitions) {
        let seconds = serde_json::json!({
            "pending": transitions.pending.as_secs_f64(),
            "stopping": transitions.stopping.as_secs_f64(),
            "shutting-down": transitions.shutting_down.as_secs_f64(),
        });
        self.ask("transitions", &seconds);
    }

    /// Sets how many instances of a pool may be there at once, stopped ones not counted; `None`:
    /// any number.
    ///
    /// A launch gets as many as are left, and fails with `InsufficientInstanceCapacity` where that
    /// is less than it wants at least.
    pub fn set_capacity(&self, pool: &Pool, instances: Option<usize>) {
        let capacity = serde_json::json!({ "pool": pool, "instances": instances });
        self.ask("capacity", &capacity);
    }

    /// Sets how many launches one page of a listing of instances shows at most, whatever its caller
    /// asks for. Listings that are not asked for in pages are whole.
    pub fn set_page(&self, reservations: usize) {
        self.ask("page", &serde_json::json!({ "reservations": reservations }));
    }

    /// Lists the instances that have a tag, by key and value, terminated ones as well.
    pub fn instances(&self, key: &str, value: &str) -> Vec<Instance> {
        let listed = self.ask("instances", &serde_json::json!({ "tag": [key, value] }));
        serde_json::from_value(listed).unwrap()
    }

    /// Makes a bucket.
    pub fn make_bucket(&self, name: &str) {
        // Moto verifies no signature, but knows the service by it.
        let signed = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, \
                      SignedHeaders=host, Signature=00";
        let host = self.endpoint.trim_start_matches("http://");
        let request = format!(
            "PUT /{name} HTTP/1.0\r\nHost: {host}\r\nAuthorization: {signed}\r\n\
             Content-Length: 0\r\n\r\n"
        );
        let answer = exchange(&self.endpoint, &request).unwrap();
        assert_eq!(answer.split(' ').nth(1), Some("200"), "{name}: {answer}");
    }

    fn ask(&self, path: &str, value: &serde_json::Value) -> serde_json::Value {
        let answer = ask(&self.endpoint, path, value);
        answer.unwrap_or_else(|error| panic!("{path} {value}: {error}"))
    }
}

/// Why the server did not do what it was asked for outside AWS's protocols.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// The server is gone, or answers too late.
    #[error("could not reach the server: {0}")]
    Unreachable(#[from] io::Error),
    /// The server answered something else than success.
    #[error("the server answered {0}")]
    Refused(String),
}

/// Asks the server at an endpoint for what it does outside AWS's protocols.
pub(crate) fn ask(
    endpoint: &str,
    path: &str,
    value: &serde_json::Value,
) -> Result<serde_json::Value, AskError> {
    let body = value.to_string();
    let request = format!(
        "POST /_testbed/{path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = exchange(endpoint, &request)?;
    let body = match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.split(' ').nth(1) == Some("200") => {
            serde_json::from_str(body).ok()
        }
        _ => None,
    };
    body.ok_or(AskError::Refused(answer))
}

/// Sends a request whose answer ends with the connection.
fn exchange(endpoint: &str, request: &str) -> io::Result<String> {
    let mut connection = TcpStream::connect(endpoint.trim_start_matches("http://"))?;
    connection.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    connection.write_all(request.as_bytes())?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    Ok(answer)
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        // An error means that it was reaped before.
        let _ = self.process.wait();
    }
}

fn start(program: &Path) -> Server {
    let python = program.with_file_name("python3");
    let mut process = Command::new(&python)
        .args(["-u", "-c", SERVER])
        .arg(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("start {}: {error}", python.display()));
    let mut lines = BufReader::new(process.stderr.take().expect("stderr is piped")).lines();
    let mut output = Vec::new();
    let endpoint = loop {
        let Some(Ok(line)) = lines.next() else {
            panic!("moto ended: {}", output.join("\n"))
        };
        if let Some((_, endpoint)) = line.split_once("Running on ") {
            break endpoint.trim().to_owned();
        }
        output.push(line);
    };
    // A full pipe would stop the server.
    thread::spawn(move || lines.for_each(drop));
    Server { endpoint, process }
}
