//! Simulates a network: a proxy on the loopback interface that forwards data in each direction with a fixed delay, or at no
//! more than a given rate.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The maximum number of chunks in transit in one direction of a connection.
const CHUNKS: usize = 1024;

/// The maximum size of a chunk in bytes.
const CHUNK_SIZE: usize = 64 << 10;

/// A thread that wakes up late makes up for at most so much time, so that the full rate is reached.
const LATE: Duration = Duration::from_millis(5);

/// What the network is like.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Network {
    /// Latency in each direction.
    pub delay: Duration,
    /// Bytes per second in each direction, for all connections together; `None` without a limit. Any amount of data may
    /// then be in transit, up to [`CHUNKS`] chunks.
    pub rate: Option<f64>,
}

impl Network {
    /// A latency, without a limit on the rate.
    pub fn with_delay(delay: Duration) -> Network {
        Network { delay, rate: None }
    }

    /// So many bits per second, without latency. All of them carry data; on a real network some 6 % are headers.
    pub fn with_bits_per_second(bits: f64) -> Network {
        Network { delay: Duration::ZERO, rate: Some(bits / 8.0) }
    }
}

/// Listens on a port of 127.0.0.1, which is returned, and forwards connections to `port` until the process ends.
pub fn start(port: u16, network: Network) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind 127.0.0.1");
    let own = listener.local_addr().expect("address of the socket").port();
    let lines = [(); 2].map(|()| Arc::new(Line { network, free: Mutex::new(Instant::now()) }));
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.expect("a connection");
            let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connect to the source");
            for stream in [&client, &server] {
                stream.set_nodelay(true).expect("disable Nagle's algorithm");
            }
            let other = |stream: &TcpStream| stream.try_clone().expect("second handle of a socket");
            forward(other(&client), other(&server), Arc::clone(&lines[0]));
            forward(server, client, Arc::clone(&lines[1]));
        }
    });
    own
}

/// One direction of the network, which all connections share.
struct Line {
    network: Network,
    /// When all data so far has passed.
    free: Mutex<Instant>,
}

impl Line {
    /// Waits until so many bytes have passed.
    fn pass(&self, bytes: usize) {
        let Some(rate) = self.network.rate else { return };
        let now = Instant::now();
        let passed = {
            let mut free = self.free.lock().expect("no thread panics here");
            *free = (*free).max(now - LATE) + Duration::from_secs_f64(bytes as f64 / rate);
            *free
        };
        std::thread::sleep(passed.saturating_duration_since(now));
    }
}

fn forward(from: TcpStream, to: TcpStream, line: Arc<Line>) {
    let (sender, receiver) = sync_channel(CHUNKS);
    std::thread::spawn(move || receive(from, &sender, &line));
    std::thread::spawn(move || send(to, &receiver));
}

fn receive(mut from: TcpStream, sender: &SyncSender<(Instant, Vec<u8>)>, line: &Line) {
    let mut buffer = vec![0; CHUNK_SIZE];
    // A broken connection is treated like a closed one: `send` closes the other side.
    while let Ok(length) = from.read(&mut buffer) {
        line.pass(length);
        let due = Instant::now() + line.network.delay;
        if length == 0 || sender.send((due, buffer[..length].to_vec())).is_err() {
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
