//! Sessions that write until their server is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use postgres::Client;

use super::server::Server;

/// Writers in the background. They end when their sessions end.
pub struct Load {
    commits: Arc<AtomicU64>,
    writers: Vec<JoinHandle<()>>,
}

impl Load {
    /// Two sessions insert, update and delete in a table `load` that they make.
    pub fn start(server: &Server) -> Load {
        server.sql("CREATE TABLE IF NOT EXISTS load (id bigserial PRIMARY KEY, n int, filler text)");
        let commits = Arc::new(AtomicU64::new(0));
        let writers = (0..2).map(|_| {
            let (client, commits) = (server.connect("postgres"), commits.clone());
            std::thread::spawn(move || write_until_the_end(client, &commits))
        });
        Load { writers: writers.collect(), commits }
    }

    /// Waits until the sessions have committed so many more transactions.
    pub fn wait_for_commits(&self, count: u64) {
        let (begin, goal) = (Instant::now(), self.commits.load(Ordering::Relaxed) + count);
        while self.commits.load(Ordering::Relaxed) < goal {
            assert!(begin.elapsed() < Duration::from_secs(60), "the load comes to no end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for the sessions, after their server is gone.
    pub fn join(self) {
        for writer in self.writers {
            writer.join().expect("a writer of the load");
        }
    }
}

fn write_until_the_end(mut client: Client, commits: &AtomicU64) {
    let statement = "
        WITH gone AS (DELETE FROM load WHERE id % 7 = 3 AND id > (SELECT max(id) - 50 FROM load) RETURNING 1)
        INSERT INTO load (n, filler) SELECT n, repeat(md5(n::text), n % 40) FROM generate_series(1, 20) n;
        UPDATE load SET n = n + 1 WHERE id > (SELECT max(id) - 30 FROM load) AND id % 3 = 0;";
    loop {
        match client.batch_execute(statement) {
            Ok(()) => commits.fetch_add(1, Ordering::Relaxed),
            Err(error) => match error.code().map(|code| code.code()) {
                // Two writers may meet at the same rows in opposite order.
                Some("40P01") => continue,
                // The server says that it ends, or says nothing any more.
                Some("57P01" | "57P02" | "57P03") | None => return,
                Some(_) => panic!("the load failed: {error:?}"),
            },
        };
    }
}
