//! A source behind PgBouncer, which lends a server's session to a client for a transaction, or for as long as the client stays.

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{
    AsServerUser, Failover, Rewind, Sandbox, Server, assert_follows, free_port, give_to_server_user,
};

/// PgBouncer in front of a server, which it reaches through its socket.
struct PgBouncer {
    child: Child,
    port: u16,
}

impl PgBouncer {
    fn start(sandbox: &Sandbox, server: &Server, mode: &str, size: usize) -> PgBouncer {
        let port = free_port();
        let log = sandbox.path(&format!("pgbouncer-{mode}-{size}.log"));
        let settings = format!(
            "[databases]\n\
             postgres = host={} port={} user=postgres\n\
             [pgbouncer]\n\
             listen_addr = 127.0.0.1\n\
             listen_port = {port}\n\
             unix_socket_dir =\n\
             auth_type = any\n\
             pool_mode = {mode}\n\
             default_pool_size = {size}\n\
             query_wait_timeout = 20\n\
             logfile = {}\n",
            server.host(),
            server.port,
            log.display()
        );
        let path = sandbox.path(&format!("pgbouncer-{mode}-{size}.ini"));
        std::fs::write(&path, settings).expect("write pgbouncer.ini");
        give_to_server_user(&path);
        let mut command = Command::new("/usr/sbin/pgbouncer");
        command.arg("-q").arg(&path).stdin(Stdio::null()).stderr(Stdio::null()).as_server_user();
        let child = command.spawn().expect("start PgBouncer: install pgbouncer");
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            assert!(started.elapsed() < Duration::from_secs(20), "PgBouncer does not listen:\n{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
        PgBouncer { child, port }
    }

    fn conninfo(&self) -> String {
        format!("host=127.0.0.1 port={} user=postgres dbname=postgres", self.port)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_server_s_session_for_each_transaction() {
    let sandbox = Sandbox::new();
    let Failover { mut old, new } = Failover::of_one_table(&sandbox);
    for (mode, size) in
        [("transaction", 1), ("transaction", 2), ("transaction", 5), ("session", 1), ("session", 2)]
    {
        let pool = PgBouncer::start(&sandbox, &new, mode, size);
        // The second run meets the sessions that the first one has used.
        for (number, options) in
            [&[][..], &["--compare-data=on"], &["--verify", "-j", "4"]].into_iter().enumerate()
        {
            let target = old.copy(&format!("{mode}-{size}-{number}"));
            let rewind = Rewind::of(&target).arg("--source-server").arg(pool.conninfo()).args(options);
            let run = rewind.unverified().run();
            assert_eq!(run.code, 0, "{mode} {size} {options:?}: {run}");
            assert!(!run.stderr.contains("lost connection"), "{mode} {size}: {run}");
            // Others who are lent these sessions can write.
            for number in 0..8 {
                let mut client =
                    postgres::Client::connect(&pool.conninfo(), postgres::NoTls).expect("connect");
                let written = client.batch_execute("BEGIN; CREATE TABLE public.written (n int); ROLLBACK");
                assert!(written.is_ok(), "{mode} {size} {number}: {written:?}");
            }
            std::fs::remove_dir_all(&target.data).expect("remove it");
        }
    }
    let pool = PgBouncer::start(&sandbox, &new, "transaction", 3);
    Rewind::of(&old).arg("--source-server").arg(pool.conninfo()).run().expect_done();
    assert_follows(&mut old, &new);
}
