//! Simulates network latency: a proxy on the loopback interface that forwards data in each direction with a fixed delay.
//!
//! Bandwidth is not limited: any amount of data may be in transit, up to [`CHUNKS`] chunks.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// The maximum number of chunks in transit in one direction of a connection.
const CHUNKS: usize = 1024;

/// The maximum size of a chunk in bytes.
const CHUNK_SIZE: usize = 64 << 10;

/// Listens on a port of 127.0.0.1, which is returned, and forwards connections to `port` until the process ends.
pub fn start(port: u16, delay: Duration) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind 127.0.0.1");
    let own = listener.local_addr().expect("address of the socket").port();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.expect("a connection");
            let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connect to the source");
            for stream in [&client, &server] {
                stream.set_nodelay(true).expect("disable Nagle's algorithm");
            }
            let other = |stream: &TcpStream| stream.try_clone().expect("second handle of a socket");
            forward(other(&client), other(&server), delay);
            forward(server, client, delay);
        }
    });
    own
}

fn forward(from: TcpStream, to: TcpStream, delay: Duration) {
    let (sender, receiver) = sync_channel(CHUNKS);
    std::thread::spawn(move || receive(from, &sender, delay));
    std::thread::spawn(move || send(to, &receiver));
}

fn receive(mut from: TcpStream, sender: &SyncSender<(Instant, Vec<u8>)>, delay: Duration) {
    let mut buffer = vec![0; CHUNK_SIZE];
    // A broken connection is treated like a closed one: `send` closes the other side.
    while let Ok(length) = from.read(&mut buffer) {
        if length == 0 || sender.send((Instant::now() + delay, buffer[..length].to_vec())).is_err() {
            return;
        }
    }
}

fn send(mut to: TcpStream, receiver: &Receiver<(Instant, Vec<u8>)>) {
    for (due, chunk) in receiver {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&chunk).is_err() {
            return;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}
