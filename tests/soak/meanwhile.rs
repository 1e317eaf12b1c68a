//! A source that goes on writing while it is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::harness::Server;

/// A session that writes, with a checkpoint now and then, until it is told to end.
pub struct Meanwhile {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Meanwhile {
    /// Begins to write.
    pub fn start(server: &Server) -> Meanwhile {
        server.sql("CREATE TABLE IF NOT EXISTS meanwhile (n int, filler text)");
        let is_over = Arc::new(AtomicBool::new(false));
        let (mut client, end) = (server.connect("postgres"), is_over.clone());
        let thread = std::thread::spawn(move || {
            for turn in 0.. {
                if end.load(Ordering::Relaxed) {
                    return;
                }
                let statement = match turn % 20 {
                    5 => "DELETE FROM meanwhile WHERE n % 3 = 0",
                    10 => "CHECKPOINT",
                    15 => "VACUUM meanwhile",
                    18 => "SELECT pg_switch_wal()",
                    _ => {
                        "INSERT INTO meanwhile SELECT n, repeat(md5(n::text), 10) FROM generate_series(1, 200) n"
                    }
                };
                client.batch_execute(statement).unwrap_or_else(|e| panic!("{statement}: {e:?}"));
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        });
        Meanwhile { is_over, thread }
    }

    /// Ends it.
    pub fn end(self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().expect("a session that writes");
    }
}
