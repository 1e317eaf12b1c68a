//! The check of the pool's own process, on a real pgpool-II: it is started, left alone, started again after it was killed, and
//! ended when no gateway responds.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{PoolCluster, Run, Sandbox, assert_logged, give_to_server_user};

/// A pool whose program nobody else runs.
struct Pool {
    cluster: PoolCluster,
    program: PathBuf,
    socket: PathBuf,
}

impl Pool {
    fn stopped(sandbox: &Sandbox) -> Pool {
        let mut cluster = PoolCluster::start(sandbox);
        cluster.stop_pool();
        let dir = cluster.dir.clone();
        let program = dir.join("kingbasecluster");
        std::fs::copy("/usr/sbin/pgpool", &program).expect("copy pgpool");
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("chmod");
        let conf = std::fs::read_to_string(dir.join("pgpool.conf")).expect("read pgpool.conf");
        let port = |name: &str| {
            let line = conf.lines().find_map(|line| line.strip_prefix(&format!("{name} = ")));
            line.expect("a port").to_owned()
        };
        let socket = |name: &str| dir.join(format!("sockets/.s.PGSQL.{}", port(name)));
        let here = dir.display();
        for (key, value) in [
            ("CLUSTER_BIN_PATH", here.to_string()),
            ("POOL_OPTIONS", format!("\"-f {here}/pgpool.conf -F {here}/pcp.conf\"")),
            ("KINGBASECLUSTERSOCKET1", socket("port").display().to_string()),
            ("KINGBASECLUSTERSOCKET2", socket("pcp_port").display().to_string()),
            ("CLUSTER_STAT_FILE", format!("{here}/pool/pgpool_status")),
            ("POOL_PID_FILE", format!("{here}/pool/pid")),
            ("CLUSTER_LOG_PATH", here.to_string()),
            ("POOL_RESTART", format!("{here}/cluster_restart.log")),
            ("HEALTH_CHECK_MAX_RETRIES", "1".to_owned()),
        ] {
            cluster.set(1, key, &value);
        }
        let socket = socket("port");
        Pool { cluster, program, socket }
    }

    fn check(&self, arguments: &[&str]) -> Run {
        self.cluster.hook(1, &[&["pool"], arguments].concat())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.cluster.dir.join("cluster_restart.log")).unwrap_or_default()
    }

    /// The processes that execute the pool's program.
    fn processes(&self) -> Vec<String> {
        let entries = std::fs::read_dir("/proc").expect("list /proc").flatten().map(|entry| entry.path());
        let is_pool =
            |path: &PathBuf| std::fs::read_link(path.join("exe")).is_ok_and(|exe| exe == self.program);
        let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
        entries.filter(is_pool).map(|path| name(&path)).collect()
    }

    fn kill(&self) {
        let processes = self.processes();
        assert!(!processes.is_empty(), "no pool runs");
        // One that sees another end would clean up.
        for signal in ["-STOP", "-KILL"] {
            let sent = Command::new("kill").arg(signal).args(&processes).status().expect("run kill");
            assert!(sent.success());
        }
        self.cluster.wait("the pool to be gone", || self.processes().is_empty());
    }

    fn wait_until_it_answers(&self) {
        self.cluster.wait("the pool to answer", || self.cluster.in_pool(1).is_some());
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg("-KILL").args(self.processes()).status();
    }
}

#[test]
fn a_pool_that_is_gone_is_started_again() {
    let sandbox = Sandbox::new();
    let pool = Pool::stopped(&sandbox);
    let dry = pool.check(&["--dry-run"]);
    assert!(dry.code == 0 && dry.stdout.contains("start                  would"), "{dry}");
    assert!(pool.processes().is_empty(), "{dry}");
    let run = pool.check(&["--format", "json"]);
    let steps = run.json()["steps"].to_string();
    assert!(
        run.code == 0 && steps.contains("kingbasecluster was started (process "),
        "{run}\n{}",
        pool.log()
    );
    pool.wait_until_it_answers();

    // A pool that runs is left alone, and so are its sockets.
    let (before, log) = (pool.processes(), pool.log());
    let run = pool.check(&[]);
    assert_eq!((run.code, pool.log()), (0, log), "{run}");
    assert!(before.iter().any(|process| pool.processes().contains(process)), "{run}");
    let dry = pool.check(&["--dry-run"]);
    assert!(dry.stdout.contains("kingbasecluster is still alive."), "{dry}");
    assert!(pool.socket.exists());

    // Killed, it leaves its sockets, with which it would not start.
    pool.kill();
    assert!(pool.socket.exists());
    let run = pool.check(&[]);
    assert_eq!(run.code, 0, "{run}\n{}", pool.log());
    pool.wait_until_it_answers();
    let removed = format!("leftovers: remove {}", pool.socket.display());
    assert_logged(&pool.log(), &["kingbasecluster is not running", &removed, "kingbasecluster was started"]);

    // Without a network another node's pool must be able to take its place.
    pool.cluster.set(1, "KB_GATEWAY_IP", "not-a-host.invalid");
    let run = pool.check(&[]);
    assert_eq!((run.code, pool.processes()), (0, vec![]), "{run}\n{}", pool.log());
    assert_logged(
        &pool.log(),
        &["none of the trusted gateways responds (not-a-host.invalid)", "kingbasecluster was ended"],
    );
    let run = pool.check(&[]);
    assert_eq!((run.code, pool.processes()), (0, vec![]), "{run}");
    assert!(pool.log().contains("is not started without a network"), "{}", pool.log());
    pool.cluster.set(1, "KB_GATEWAY_IP", "127.0.0.1");

    nothing_of_others_is_removed(&pool);
    the_entry_of_cron(&pool);
}

fn nothing_of_others_is_removed(pool: &Pool) {
    let of_another = UnixListener::bind(&pool.socket).expect("listen");
    std::fs::set_permissions(&pool.socket, PermissionsExt::from_mode(0o777)).expect("chmod");
    let run = pool.check(&[]);
    assert_eq!((run.code, pool.socket.exists(), pool.processes()), (1, true, vec![]), "{run}");
    assert!(pool.log().contains("but a process accepts connections on"), "{}", pool.log());
    drop(of_another);
    std::fs::remove_file(&pool.socket).expect("remove the socket");
    std::fs::write(&pool.socket, "no socket").expect("write a file");
    give_to_server_user(&pool.socket);
    let run = pool.check(&[]);
    assert_eq!((run.code, pool.socket.exists(), pool.processes()), (66, true, vec![]), "{run}");
    assert!(pool.log().contains("is not a socket, and is not removed"), "{}", pool.log());
    std::fs::remove_file(&pool.socket).expect("remove the file");

    // A pool that ends at once is told.
    let options = "\"-f /nonexistent/pgpool.conf\"";
    let good = pool.cluster.setting(1, "POOL_OPTIONS");
    pool.cluster.set(1, "POOL_OPTIONS", options);
    let run = pool.check(&[]);
    assert_eq!((run.code, pool.processes()), (66, vec![]), "{run}\n{}", pool.log());
    assert!(pool.log().contains("kingbasecluster ended after it was started"), "{}", pool.log());
    pool.cluster.set(1, "POOL_OPTIONS", &good);
}

fn the_entry_of_cron(pool: &Pool) {
    let file = pool.cluster.home(1).join("run/CRON");
    let path = file.to_str().expect("UTF-8");
    pool.cluster.write(&file, "*/1 * * * * root  /c/bin/restartcluster.sh\n");
    let call = |action: &str| {
        let run = pool.check(&[action, "--cron-file", path, "--format", "json"]);
        (run.code, run.json()["state"].as_str().unwrap_or_default().to_owned())
    };
    let said = |code, state: &str| (code, state.to_owned());
    assert_eq!(call("status"), said(3, "not installed"));
    assert_eq!(call("install"), said(0, "enabled"));
    assert_eq!(call("status"), said(0, "enabled"));
    let text = std::fs::read_to_string(&file).expect("read the cron file");
    assert!(text.starts_with("##*/1 * * * * root  /c/bin/restartcluster.sh\n*/1 * * * * root  "), "{text}");
    assert!(text.ends_with("HAmodule.conf pool\n"), "{text}");
    // The entry of the flow is another one.
    let flow = pool.cluster.hook(1, &["status", "--cron-file", path]);
    assert_eq!(flow.code, 3, "{flow}");
    assert_eq!(call("disable"), said(0, "disabled"));
    assert_eq!(call("status"), said(3, "disabled"));
}
