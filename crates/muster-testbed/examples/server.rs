//! The protocol server by itself, behind a proxy that keeps its clients' connections open as AWS does:
//! `cargo run -p muster-testbed --example server` prints the address, and ends with its input.
#![expect(clippy::unwrap_used, reason = "what can not start is to say so")]

use muster_testbed::{moto::Server, proxy::FaultProxy};

fn main() {
    let server = Server::start().expect("MUSTER_MOTO names moto_server");
    let proxy = FaultProxy::start(server.endpoint(), 0);
    println!("{}", proxy.endpoint());
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
}
