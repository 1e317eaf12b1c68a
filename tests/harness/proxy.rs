//! A TCP proxy in front of the Unix sockets of servers: its connections misbehave, or lead to several servers in turn.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::server::Server;

/// What the proxy does when it has passed on so and so many bytes of the server's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Then {
    /// Breaks all connections, and every new one.
    Cut,
    /// Breaks all connections once.
    CutOnce,
    /// Breaks all connections each time as many bytes have passed again.
    CutAgain,
    /// Passes nothing on, and keeps them open.
    Stall,
    /// Passes nothing on over this connection, and keeps it open; all others work.
    StallOne,
    /// Puts in some bytes that the server did not send, once: what follows makes no sense.
    Garble,
    /// Passes on a few megabytes a second from then on.
    Slow,
    /// Waits until the test lets it go on, see [`Proxy::wait_until_there`] and [`Proxy::go_on`].
    Hold,
}

/// Passes on what a server sends, up to a limit counted over all connections.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    reached: Receiver<()>,
    released: Sender<()>,
}

struct Shared {
    limit: u64,
    then: Then,
    passed: AtomicU64,
    /// How often something was done.
    faults: AtomicU64,
    servers: Mutex<Servers>,
    open: Mutex<Vec<(TcpStream, UnixStream)>>,
    reached: Sender<()>,
    released: Mutex<Receiver<()>>,
}

/// Where new connections lead to, in turn; `None` is a place that accepts connections and never answers.
struct Servers {
    sockets: Vec<Option<PathBuf>>,
    next: usize,
}

impl Servers {
    fn new(servers: &[Option<&Server>]) -> Servers {
        Servers { sockets: servers.iter().map(|server| server.map(socket_of)).collect(), next: 0 }
    }

    fn deal(&mut self) -> Option<PathBuf> {
        let socket = self.sockets[self.next % self.sockets.len()].clone();
        self.next += 1;
        socket
    }
}

impl Proxy {
    /// A proxy to several servers, as a load balancer is: each new connection leads to the next of them.
    pub fn between(servers: &[Option<&Server>], limit: u64, then: Then) -> Proxy {
        let first = servers.iter().flatten().next().expect("a server");
        let proxy = Proxy::to(first, limit, then);
        proxy.deal(servers);
        proxy
    }

    /// A proxy to this server.
    pub fn to(server: &Server, limit: u64, then: Then) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind 127.0.0.1");
        let port = listener.local_addr().expect("address of the proxy").port();
        let ((reached, was_reached), (release, released)) = (channel(), channel());
        let shared = Arc::new(Shared {
            limit,
            then,
            passed: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            servers: Mutex::new(Servers::new(&[Some(server)])),
            open: Mutex::default(),
            reached,
            released: Mutex::new(released),
        });
        let proxy = Proxy { port, shared: Arc::clone(&shared), reached: was_reached, released: release };
        std::thread::spawn(move || {
            for client in listener.incoming() {
                shared.accept(client.expect("accept a connection"));
            }
        });
        proxy
    }

    /// What `--source-server` is given.
    pub fn conninfo(&self) -> String {
        format!("host=127.0.0.1 port={} user=postgres dbname=postgres", self.port)
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many bytes of the server's have passed.
    pub fn passed(&self) -> u64 {
        self.shared.passed.load(Ordering::SeqCst)
    }

    /// How often the fault has happened.
    pub fn faults(&self) -> u64 {
        self.shared.faults.load(Ordering::SeqCst)
    }

    /// Leads new connections to another server.
    pub fn lead_to(&self, server: &Server) {
        self.deal(&[Some(server)]);
    }

    /// Leads new connections to these in turn.
    pub fn deal(&self, servers: &[Option<&Server>]) {
        *self.shared.servers.lock().expect("servers") = Servers::new(servers);
    }

    /// Waits until as many bytes have passed as [`Then::Hold`] was told.
    pub fn wait_until_there(&self) {
        self.reached.recv_timeout(Duration::from_secs(90)).expect("the run never came to this byte");
    }

    /// Lets what was held go on.
    pub fn go_on(&self) {
        self.released.send(()).expect("somebody to be let go on");
    }
}

impl Shared {
    fn accept(self: &Arc<Shared>, client: TcpStream) {
        let Some(path) = self.servers.lock().expect("servers").deal() else {
            // Kept open for as long as the test runs.
            std::mem::forget(client);
            return;
        };
        // A server that is down refuses; so does the proxy, by closing.
        let Ok(server) = UnixStream::connect(&path) else { return };
        let (mut to_server, mut from_client) =
            (server.try_clone().expect("clone"), client.try_clone().expect("clone"));
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut from_client, &mut to_server);
            let _ = to_server.shutdown(Shutdown::Write);
        });
        let pair = (client.try_clone().expect("clone"), server.try_clone().expect("clone"));
        self.open.lock().expect("open connections").push(pair);
        let shared = Arc::clone(self);
        std::thread::spawn(move || shared.pass_on(server, client));
    }

    fn pass_on(&self, mut server: UnixStream, mut client: TcpStream) {
        let mut buffer = [0; 8192];
        while let Ok(count @ 1..) = server.read(&mut buffer) {
            let before = self.passed.fetch_add(count as u64, Ordering::SeqCst);
            if self.is_due(before, before + count as u64) {
                self.faults.fetch_add(1, Ordering::SeqCst);
                match self.then {
                    Then::Cut | Then::CutOnce | Then::CutAgain => {
                        // A part of what was read still arrives: messages break off in the middle.
                        let part = (self.limit.saturating_sub(before) as usize).min(count);
                        let _ = client.write_all(&buffer[..part]);
                        self.cut();
                        break;
                    }
                    Then::Stall | Then::StallOne => std::thread::sleep(Duration::from_secs(600)),
                    Then::Garble => {
                        let _ = client.write_all(&[0xFF; 7]);
                    }
                    Then::Slow => std::thread::sleep(Duration::from_millis(2)),
                    Then::Hold => {
                        let _ = self.reached.send(());
                        let _ = self.released.lock().expect("released").recv();
                    }
                }
            }
            if client.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    }

    /// Whether the fault happens among the bytes from `before` to `after`.
    fn is_due(&self, before: u64, after: u64) -> bool {
        match self.then {
            Then::Cut | Then::Stall | Then::Slow => after > self.limit,
            Then::CutAgain => before / self.limit != after / self.limit,
            _ => before <= self.limit && after > self.limit,
        }
    }

    fn cut(&self) {
        for (client, server) in self.open.lock().expect("open connections").drain(..) {
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
        }
    }
}

fn socket_of(server: &Server) -> PathBuf {
    PathBuf::from(server.host()).join(format!(".s.PGSQL.{}", server.port))
}
