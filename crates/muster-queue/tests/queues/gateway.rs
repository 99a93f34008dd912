//! A server before moto's that answers in its place where a test says so.

use std::{
    io::{BufRead, BufReader, Error, Read, Result, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// An error as SQS answers it.
pub struct Refusal {
    pub status: u16,
    pub code: &'static str,
    pub message: &'static str,
}

/// What AWS says to a role without the permission.
pub const DENIED: Refusal = Refusal {
    status: 403,
    code: "AccessDenied",
    message: "User: arn:aws:sts::123456789012:role is not authorized to perform this",
};

/// Refuses a call or lets it pass, by its action and by how many were made before.
type Rule = dyn Fn(&str, usize) -> Option<Refusal> + Send + Sync;

pub struct Gateway {
    pub endpoint: String,
    connections: Arc<AtomicUsize>,
}

impl Gateway {
    /// Listens before the server at `upstream`, until the test process ends.
    pub fn start(
        upstream: &str,
        rule: impl Fn(&str, usize) -> Option<Refusal> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let connections = Arc::new(AtomicUsize::new(0));
        let upstream = upstream.trim_start_matches("http://").to_owned();
        let (accepted, calls) = (Arc::clone(&connections), Arc::new(AtomicUsize::new(0)));
        let rule: Arc<Rule> = Arc::new(rule);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                accepted.fetch_add(1, Ordering::SeqCst);
                let (upstream, rule, calls) =
                    (upstream.clone(), Arc::clone(&rule), Arc::clone(&calls));
                // The client sees a broken connection where this fails, and its test with it.
                thread::spawn(move || serve(&client, &upstream, &*rule, &calls));
            }
        });
        Self {
            endpoint: format!("http://{address}"),
            connections,
        }
    }

    /// How many connections were made to it.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn serve(mut client: &TcpStream, upstream: &str, rule: &Rule, calls: &AtomicUsize) -> Result<()> {
    let mut reader = BufReader::new(client);
    loop {
        let Some((head, body)) = read(&mut reader)? else {
            return Ok(());
        };
        let target = field(&head, "x-amz-target").unwrap_or_default();
        let action = target.rsplit('.').next().unwrap_or_default();
        let answer = match rule(action, calls.fetch_add(1, Ordering::SeqCst)) {
            Some(refusal) => refuse(&refusal),
            None => forward(&head, &body, upstream)?,
        };
        client.write_all(&answer)?;
    }
}

fn read(reader: &mut impl BufRead) -> Result<Option<(Vec<String>, Vec<u8>)>> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        match line.trim_end() {
            "" => break,
            line => head.push(line.to_owned()),
        }
    }
    let length = field(&head, "content-length").and_then(|length| length.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    Ok(Some((head, body)))
}

fn field<'a>(head: &'a [String], name: &str) -> Option<&'a str> {
    head.iter()
        .filter_map(|line| line.split_once(':'))
        .find(|(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

fn refuse(refusal: &Refusal) -> Vec<u8> {
    let Refusal {
        status,
        code,
        message,
    } = refusal;
    let body = format!("{{\"__type\":\"com.amazonaws.sqs#{code}\",\"message\":\"{message}\"}}");
    format!(
        "HTTP/1.1 {status} Refused\r\nx-amzn-requestid: request-7\r\n\
         content-type: application/x-amz-json-1.0\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Passes a call on, over a connection of its own, and returns the answer with its length told.
fn forward(head: &[String], body: &[u8], upstream: &str) -> Result<Vec<u8>> {
    let mut server = TcpStream::connect(upstream)?;
    let mut request = String::new();
    let named = |line: &&String| !line.to_ascii_lowercase().starts_with("connection:");
    for line in head.iter().filter(named) {
        request.push_str(line);
        request.push_str("\r\n");
    }
    request.push_str("connection: close\r\n\r\n");
    server.write_all(request.as_bytes())?;
    server.write_all(body)?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.ok_or_else(|| Error::other("the server's answer has no end of its head"))?;
    let (head, body) = (&answer[..end], &answer[end + 4..]);
    let mut passed = Vec::new();
    for line in String::from_utf8_lossy(head).lines() {
        let lower = line.to_ascii_lowercase();
        if !lower.starts_with("connection:") && !lower.starts_with("content-length:") {
            passed.extend_from_slice(line.as_bytes());
            passed.extend_from_slice(b"\r\n");
        }
    }
    passed.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
    passed.extend_from_slice(body);
    Ok(passed)
}
