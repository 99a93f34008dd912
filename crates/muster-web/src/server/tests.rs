//! The server with real connections.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::routing::{get, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::sync::{mpsc, oneshot, watch};

use super::*;

/// Longest wait for anything that has to happen.
const LIMIT: Duration = Duration::from_secs(20);
const LIMITS: ConnectionLimits = ConnectionLimits {
    connections: 6,
    header_timeout: LIMIT,
    write_timeout: LIMIT,
    header_bytes: 8192,
};

/// Serves on loopback until what is returned is dropped.
async fn start(
    router: Router,
    limits: ConnectionLimits,
) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = serve(listener, router, limits, CancellationToken::new());
    (address, tokio::spawn(serving))
}

/// A connection from an address of this machine.
async fn connect(from: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    let from = IpAddr::V4(Ipv4Addr::from(from));
    socket.bind(SocketAddr::new(from, 0)).unwrap();
    socket.connect(to).await.unwrap()
}

async fn ask(stream: &mut TcpStream, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
}

/// What comes until `end` does, or the connection ends.
async fn answer(stream: &mut TcpStream, end: &str) -> String {
    let mut all = Vec::new();
    let read = async {
        let mut some = [0; 1024];
        while !all.ends_with(end.as_bytes()) {
            match stream.read(&mut some).await {
                Ok(0) | Err(_) => break,
                Ok(n) => all.extend_from_slice(&some[..n]),
            }
        }
    };
    tokio::time::timeout(LIMIT, read)
        .await
        .expect("an answer or an end");
    String::from_utf8(all).unwrap()
}

#[tokio::test]
async fn idle_connections_of_one_client_keep_nobody_out() {
    let router = Router::new().route("/", get(|| async { "answered" }));
    let (address, serving) = start(router, LIMITS).await;
    let mut idle = Vec::new();
    for _ in 0..5 * LIMITS.connections {
        idle.push(connect([127, 0, 0, 1], address).await);
    }
    for from in [[127, 0, 0, 1], [127, 0, 0, 2]] {
        let mut stream = connect(from, address).await;
        ask(&mut stream, "/").await;
        assert!(
            answer(&mut stream, "answered")
                .await
                .starts_with("HTTP/1.1 200"),
            "{from:?}"
        );
    }
    serving.abort();
}

#[tokio::test]
async fn busy_connections_stay_and_are_a_share_of_all() {
    type Gate = (mpsc::UnboundedSender<()>, watch::Receiver<bool>);
    let (entered, mut entries) = mpsc::unbounded_channel();
    let (open, gate) = watch::channel(false);
    let slow = get(|State((entered, mut gate)): State<Gate>| async move {
        entered.send(()).unwrap();
        gate.wait_for(|open| *open).await.unwrap();
        "answered"
    });
    let router = Router::new().route("/", slow).with_state((entered, gate));
    let (address, serving) = start(router, LIMITS).await;
    let mut busy = Vec::new();
    for _ in 0..LIMITS.connections / 2 {
        let mut stream = connect([127, 0, 0, 1], address).await;
        ask(&mut stream, "/").await;
        busy.push(stream);
        tokio::time::timeout(LIMIT, entries.recv())
            .await
            .unwrap()
            .unwrap();
    }
    let mut beyond = connect([127, 0, 0, 1], address).await;
    assert_eq!(
        answer(&mut beyond, "answered").await,
        "",
        "its share is taken"
    );
    let mut other = connect([127, 0, 0, 2], address).await;
    ask(&mut other, "/").await;
    tokio::time::timeout(LIMIT, entries.recv())
        .await
        .unwrap()
        .unwrap();
    open.send(true).unwrap();
    for stream in busy.iter_mut().chain([&mut other]) {
        assert!(answer(stream, "answered").await.starts_with("HTTP/1.1 200"));
    }
    serving.abort();
}

#[tokio::test]
async fn who_reads_nothing_of_an_answer_is_cut() {
    type Gone = Arc<Mutex<Option<oneshot::Sender<()>>>>;
    let (gone, cut) = oneshot::channel();
    // More than the buffers of both sides take: it never ends by itself.
    let endless = get(|State(gone): State<Gone>| async move {
        let gone = gone.lock().unwrap().take();
        Body::from_stream(futures::stream::repeat_with(move || {
            let _until_cut = &gone;
            Ok::<_, Infallible>(Bytes::from_static(&[0; 65536]))
        }))
    });
    let gone = Arc::new(Mutex::new(Some(gone)));
    let router = Router::new().route("/", endless).with_state(gone);
    let limits = ConnectionLimits {
        write_timeout: Duration::from_millis(200),
        ..LIMITS
    };
    let (address, serving) = start(router, limits).await;
    let mut stream = connect([127, 0, 0, 1], address).await;
    ask(&mut stream, "/").await;
    let cut = tokio::time::timeout(LIMIT, cut).await;
    assert!(cut.expect("the answer is given up").is_err());
    serving.abort();
}

#[tokio::test]
async fn an_answer_before_the_photograph_reaches_who_sends_it() {
    let refused = post(|| async { "refused" });
    let router = Router::new()
        .route("/", get(|| async { "answered" }))
        .route("/upload", refused);
    let (address, serving) = start(router, LIMITS).await;
    let upload = |headers: &str, body: &[u8]| {
        let head = format!("POST /upload HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n");
        [head.as_bytes(), body].concat()
    };
    let photo = vec![b'x'; 3 << 20];
    let whole = upload(&format!("Content-Length: {}", photo.len()), &photo);
    let chunk = format!("{:x}\r\n", photo.len());
    let chunks = [chunk.as_bytes(), &photo, b"\r\n0\r\n\r\n"].concat();
    for request in [whole, upload("Transfer-Encoding: chunked", &chunks)] {
        let mut stream = connect([127, 0, 0, 1], address).await;
        for _ in 0..3 {
            stream.write_all(&request).await.unwrap();
            let refused = answer(&mut stream, "refused").await;
            assert!(!refused.contains("connection: close"), "{refused}");
            ask(&mut stream, "/").await;
            let answered = answer(&mut stream, "answered").await;
            assert!(answered.starts_with("HTTP/1.1 200"), "{answered}");
        }
    }
    // Longer than anybody waits for, never sent to the end, and held back until it is asked for.
    for (headers, sent) in [
        ("Content-Length: 1000000000", 1000),
        ("Content-Length: 2000", 1000),
        ("Content-Length: 2000\r\nExpect: 100-continue", 0),
    ] {
        let mut stream = connect([127, 0, 0, 1], address).await;
        let request = upload(headers, &photo[..sent]);
        stream.write_all(&request).await.unwrap();
        let refused = answer(&mut stream, "the connection's end").await;
        assert!(refused.starts_with("HTTP/1.1 200"), "{headers}: {refused}");
        assert!(
            refused.contains("connection: close"),
            "{headers}: {refused}"
        );
        assert!(refused.ends_with("refused"), "{headers}: {refused}");
    }
    serving.abort();
}
