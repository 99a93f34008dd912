//! A proxy in front of EC2 that stops at one call, or answers it in EC2's place.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// What becomes of the calls of one action.
#[derive(Clone, Debug)]
pub enum Fault {
    /// They never reach EC2, and are never answered.
    LostBefore,
    /// They reach EC2, and are never answered.
    LostAfter,
    /// EC2 answers so.
    Answer(u16, String),
}

/// Runs until it is dropped.
pub struct Proxy {
    pub endpoint: String,
    /// Notified when the fault has taken place.
    pub reached: Arc<Notify>,
    _task: JoinSet<()>,
}

impl Proxy {
    pub async fn new(upstream: &str, action: &str, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let reached = Arc::new(Notify::new());
        let mut task = JoinSet::new();
        let (upstream, told) = (upstream.replace("http://", ""), Arc::clone(&reached));
        let action = format!("Action={action}&");
        task.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (upstream, action, told) =
                    (upstream.clone(), action.clone(), Arc::clone(&told));
                connections.spawn(serve(client, upstream, action, fault.clone(), told));
            }
        });
        Self {
            endpoint,
            reached,
            _task: task,
        }
    }
}

async fn serve(
    mut client: TcpStream,
    upstream: String,
    action: String,
    fault: Fault,
    reached: Arc<Notify>,
) {
    let Some((head, body)) = request(&mut client).await else {
        return;
    };
    let fault = body.starts_with(&action).then_some(fault);
    match &fault {
        Some(Fault::LostBefore) => {
            reached.notify_one();
            return std::future::pending().await;
        }
        Some(Fault::Answer(status, body)) => {
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status} No\r\nContent-Type: text/xml\r\nConnection: close\r\n\
                 Content-Length: {length}\r\n\r\n{body}"
            );
            client.write_all(answer.as_bytes()).await.unwrap();
            reached.notify_one();
            return;
        }
        Some(Fault::LostAfter) | None => {}
    }
    let mut server = TcpStream::connect(upstream).await.unwrap();
    let (first, rest) = head.split_once("\r\n").unwrap();
    let forwarded = format!("{first}\r\nConnection: close\r\n{rest}{body}");
    server.write_all(forwarded.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).await.unwrap();
    if fault.is_some() {
        reached.notify_one();
        return std::future::pending().await;
    }
    client.write_all(&answer).await.unwrap();
}

/// One request: its head, with the empty line, and its body.
async fn request(client: &mut TcpStream) -> Option<(String, String)> {
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                let is_length = name.eq_ignore_ascii_case("content-length");
                is_length.then(|| value.trim().parse::<usize>().unwrap())
            });
            if body.len() >= length.unwrap_or(0) {
                return Some((format!("{head}\r\n\r\n"), body.to_owned()));
            }
        }
        if client.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    }
}
