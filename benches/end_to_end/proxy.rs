//! Distance: a proxy on loopback that hands everything on later by a fixed time, each way.
//!
//! Only latency is added. As much may be under way as the source sends in that time.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// The most chunks that are under way in one direction of one connection.
const CHUNKS: usize = 1024;

/// The most bytes in a chunk.
const CHUNK_SIZE: usize = 64 << 10;

/// Listens on a port of 127.0.0.1, which is returned, and hands on to `port` until the process ends.
pub fn start(port: u16, delay: Duration) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind 127.0.0.1");
    let own = listener.local_addr().expect("address of the socket").port();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.expect("a connection");
            let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connect to the source");
            for stream in [&client, &server] {
                stream.set_nodelay(true).expect("switch Nagle's algorithm off");
            }
            let other = |stream: &TcpStream| stream.try_clone().expect("second handle of a socket");
            hand_on(other(&client), other(&server), delay);
            hand_on(server, client, delay);
        }
    });
    own
}

fn hand_on(from: TcpStream, to: TcpStream, delay: Duration) {
    let (sender, receiver) = sync_channel(CHUNKS);
    std::thread::spawn(move || receive(from, &sender, delay));
    std::thread::spawn(move || send(to, &receiver));
}

fn receive(mut from: TcpStream, sender: &SyncSender<(Instant, Vec<u8>)>, delay: Duration) {
    let mut buffer = vec![0; CHUNK_SIZE];
    // A connection that breaks ends as one that is closed: the other side is told below.
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
